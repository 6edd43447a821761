// onnxpress compress IN -o OUT: runs a pipeline, measures what it cost, writes a smaller model.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "tools/cli.h"
#include "tools/compress_flags.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  require(file.good(), "cannot read it: {}", std::strerror(errno));
  return text.str();
}

// Gives `option` the recipe's value unless the command line said one.
void apply_setting(CLI::App& app, const std::string& key, const std::string& value) {
  CLI::Option* option = nullptr;
  std::vector<std::string> known;
  for (CLI::App* owner : {&app, app.get_parent()})
    for (CLI::Option* candidate : owner->get_options())
      for (const std::string& name : candidate->get_lnames()) {
        known.push_back(name);
        if (name == key) option = candidate;
      }
  const bool refused = key == "passes" || key == "recipe" || key == "preset" || key == "help";
  if (option == nullptr || refused) {
    const std::string nearest = nearest_name(key, known);
    fail("unknown setting '{}'{}", key,
         nearest.empty() || refused ? "" : fmt::format("; did you mean '{}'?", nearest));
  }
  if (option->count() > 0) return;
  if (option->get_items_expected_max() == 0) {  // a flag
    require(value == "true" || value == "false", "{}: expected true or false, found '{}'", key,
            value);
    if (value == "false") return;
  }
  // A sequence in the recipe came joined with ','.
  if (option->get_items_expected_max() > 1)
    for (const std::string& item : CLI::detail::split(value, ',')) option->add_result(item);
  else
    option->add_result(value);
  option->run_callback();
}

class CompressVerb : public Verb {
 public:
  std::string name() const override { return "compress"; }
  std::string summary() const override {
    return "Makes a model smaller with a pipeline of passes, measures what it cost, and writes it.";
  }
  std::string usage() const override {
    return "IN -o OUT [--passes SPEC | --recipe FILE | --preset NAME]";
  }

  void declare(CLI::App& app) override {
    declare_pipeline(app);
    flags_.declare_output(app, job_);
    flags_.declare_data(app, job_);
    flags_.declare_teacher(app);
  }

  void prepare(CLI::App& app) override {
    if (recipe_.empty()) return;
    in_context([&] { return fmt::format("recipe '{}'", recipe_); },
               [&] {
                 Recipe recipe = parse_recipe(read_text(recipe_));
                 for (const auto& [key, value] : recipe.settings) apply_setting(app, key, value);
                 job_.pipeline = std::move(recipe.pipeline);
               });
  }

  int run(Session& session) override {
    require(!job_.input.empty(), "compress: expected a model");
    require(!job_.output.empty(), "compress: expected -o OUT");
    choose_pipeline();
    if (flags_.gates().limits().max_drop) hand_on_drop(*flags_.gates().limits().max_drop);
    flags_.fill(job_, session);
    job_.recipe = recipe_;
    job_.explain = explain_option_->count() > 0;
    require(!job_.explain || session.prints() || !job_.reports.empty(),
            "--explain with --quiet lists nothing: give --report FILE or --format too");
    return run_compress(job_, session);
  }

 private:
  void declare_pipeline(CLI::App& app) {
    app.add_option("IN", job_.input, "a model, or - for standard input");
    passes_option_ =
        app.add_option("--passes", passes_, "the pipeline: simplify,prune_magnitude{sparsity=0.5}")
            ->type_name("SPEC");
    app.add_option("--recipe", recipe_, "a YAML file with passes and defaults for these options")
        ->type_name("FILE");
    app.add_option("--preset", preset_, "a named pipeline ('onnxpress passes' lists them)")
        ->type_name("NAME");
    target_option_ = app.add_option("--target", target_,
                                    "the runtime that is to run the model: for every pass with an option 'target'")
                         ->type_name("NAME");
    app.add_flag("--keep-going", job_.keep_going,
                 "a pass that is rolled back is no failure: go on without it");
    explain_option_ = app.add_option("--explain", job_.explain_rule,
                                     "list what passes (or RULE) left as it was, and why")
                          ->type_name("RULE")
                          ->expected(0, 1);
    app.add_option("--reproducers", job_.reproducers,
                   "folder for what reproduces a pass that was rolled back")
        ->type_name("DIR");
  }

  void choose_pipeline() {
    const bool by_text = passes_option_->count() > 0;
    const int ways = (by_text ? 1 : 0) + (recipe_.empty() ? 0 : 1) + (preset_.empty() ? 0 : 1);
    require(ways == 1, "compress: expected one of --passes, --recipe and --preset, found {}",
            ways == 0 ? "none" : "several");
    if (!preset_.empty()) job_.pipeline = preset(preset_);
    if (by_text)
      job_.pipeline =
          in_context([] { return "--passes"; }, [&] { return Pipeline::parse(passes_); });
    if (target_option_->count() > 0) choose_target();
  }

  // The step with one more option said.
  static PipelineStep with_option(const PipelineStep& step, std::string_view option, const std::string& value) {
    const std::string given = step.options.to_text();
    Pipeline pipeline = Pipeline::parse(fmt::format("{}{{{}{}{}={}}}", step.pass->info().name, given, given.empty() ? "" : ",",
                                                    option, quote_option_value(value)));
    return std::move(pipeline.steps.front());
  }

  // --max-drop is also what steps may lose that choose widths themselves, unless they say otherwise.
  void hand_on_drop(const Limit<double>& drop) {
    for (PipelineStep& step : job_.pipeline.steps) {
      const auto specs = step.pass->info().options;
      const auto has = [&](std::string_view option) { return std::ranges::find(specs, option, &OptionSpec::name) != specs.end(); };
      if (!has("max_drop") || !has("budget") || step.options.given("max_drop") || step.options.given("budget")) continue;
      if (step.options.text("bits") == "auto")
        step = with_option(step, "max_drop", fmt::format("{}%", drop.value));
    }
  }

  // Steps that say a target of their own keep it.
  void choose_target() {
    bool taken = false;
    for (PipelineStep& step : job_.pipeline.steps) {
      const auto options = step.pass->info().options;
      if (std::ranges::find(options, "target", &OptionSpec::name) == options.end()) continue;
      taken = true;
      if (step.options.given("target")) continue;
      in_context([] { return "--target"; }, [&] { step = with_option(step, "target", target_); });
    }
    require(taken, "--target: no pass of the pipeline has a target");
  }

  CompressJob job_;
  std::string passes_, recipe_, preset_, target_;
  CLI::Option *passes_option_ = nullptr, *explain_option_ = nullptr, *target_option_ = nullptr;
  CompressFlags flags_;
};

}  // namespace

std::unique_ptr<Verb> compress_verb() { return std::make_unique<CompressVerb>(); }

}  // namespace onnxpress
