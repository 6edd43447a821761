// onnxpress analyze MODEL --calib DATA: what quantizing each layer alone costs, and what to do about it.
#include <algorithm>
#include <cmath>

#include "graph/rewrite/inline.h"
#include "passes/core/pipeline.h"
#include "passes/core/prepared_pass.h"
#include "passes/core/registry.h"
#include "passes/quantize/diagnosis.h"
#include "tools/cli.h"
#include "tools/flags.h"
#include "tools/judgement.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

// A layer is worth sparing when it makes at least this share of all the noise, and this many times its
// share of the weights; and no more than this share of the weights is spared, the worst layers first.
constexpr double large_share = 0.1, more_than_its_weights = 2, most_spared = 0.5;
constexpr std::int64_t usual_samples = 512;

Json decibel(const std::optional<double>& value) { return value && std::isfinite(*value) ? Json(*value) : Json(); }

class AnalyzeVerb : public Verb {
 public:
  std::string name() const override { return "analyze"; }
  std::string summary() const override {
    return "Quantizes one layer at a time, ranks layers by what that does to the outputs, says why and what helps.";
  }
  std::string usage() const override { return "MODEL --calib DATA [--scheme SCHEME] [--bits N]"; }

  void declare(CLI::App& app) override {
    app.add_option("MODEL", path_, "a model, or - for standard input");
    const std::string group = "Quantization";
    app.add_option("--scheme", scheme_, "static (activations and weights), dynamic or weights (static)")->type_name("SCHEME")->group(group);
    app.add_option("--bits", bits_, "width of the layer that is quantized (8)")->type_name("N")->group(group);
    app.add_option("--options", options_, "more options of quantize: 'granularity=tensor,calibration=minmax'")
        ->type_name("TEXT")
        ->group(group);
    app.add_option("--passes", passes_, "pipeline to run first, as for compress: 'simplify,fuse'")->type_name("SPEC")->group(group);
    app.add_option("--calib", calib_, "samples that ranges and outputs are measured on")->type_name("DATA")->group("Data");
    app.add_option("--calib-cache", cache_, "keep what was seen of the samples in a file, and use it instead of running the model again")
        ->type_name("FILE")
        ->group("Data");
    app.add_option("--samples", samples_, "how many of them outputs are compared on (512, fewer for large models)")
        ->type_name("N")
        ->group("Data");
    flags_.declare(app);
    app.add_option("--report", reports_, "also write the report: .json, .md or .txt; repeatable")->type_name("FILE")->group("Report");
  }

  int run(Session& session) override {
    require(!path_.empty(), "analyze: expected a model");
    require(!calib_.empty(), "analyze: expected --calib DATA");
    const std::int64_t samples = samples_.empty() ? 0 : parse_integer("--samples", samples_, 1, 1'000'000);
    const DataOptions data_options = flags_.options();
    const PipelineStep step = quantize_step();
    const QuantizeRequest request = QuantizeRequest::from(step.options);
    const Pipeline before = in_context([] { return "--passes"; }, [&] { return Pipeline::parse(passes_); });
    refuse_overwriting(joined({cache_}, reports_), joined({path_, calib_, flags_.labels()}, session.settings().plugins));
    check_report_paths(reports_);
    if (!cache_.empty()) check_writable(cache_);
    LoadedModel loaded = load_model(path_, DeflatedSize::off);
    refuse_overwriting(reports_, loaded.data_files);
    session.warn(loaded.warnings);
    if (flags_.shapes().given()) loaded.model = flags_.shapes().applied(*loaded.model);
    require_engine_runs(*loaded.model);
    const Json model = model_section(loaded.file, *loaded.model, model_stats(*loaded.model), 0);
    const std::unique_ptr<Dataset> data = open_data(calib_, *loaded.model, data_options);
    tell_notes(*data, session, loaded.notes);
    const std::unique_ptr<Model> prepared = prepare(*loaded.model, before, step, *data, session, loaded.notes);

    ThreadPool pool(session.threads());
    std::vector<std::string> calibrated;
    PassContext context{.options = step.options,
                        .pool = pool,
                        .seed = session.settings().seed,
                        .calibration = data.get(),
                        .calibration_cache = cache_,
                        .calibrated = &calibrated,
                        .progress = [&](const std::string& what, std::size_t, std::size_t) { session.progress().stage(what); }};
    Json report = report_header(session.run_info(name()));
    report["headline"] = "";
    report["warnings"] = loaded.warnings;
    report["model"] = model;
    report["data"] = {{"calib", data_section(*data)}};
    report["preprocessing"] = flags_.said();
    report["input_shapes"] = flags_.shapes().shapes();
    report["quantize"] = Pipeline::to_text(step);
    report["analysis"] = analyze(*prepared, request, context, samples, session, loaded.notes);
    report["notes"] = loaded.notes;
    StagedFiles staged;
    stage_reports(reports_, report, staged);
    session.finish(report, staged);
    return status_done;
  }

 private:
  PipelineStep quantize_step() const {
    std::string text = "quantize{";
    const auto add = [&](const std::string& option, const std::string& value) {
      if (!value.empty()) text += fmt::format("{}{}={}", text.back() == '{' ? "" : ",", option, quote_option_value(value));
    };
    add("scheme", scheme_);
    add("bits", bits_);
    if (!options_.empty()) text += (text.back() == '{' ? "" : ",") + options_;
    Pipeline pipeline = in_context([] { return "options of quantize"; }, [&] { return Pipeline::parse(text + "}"); });
    require(pipeline.steps.size() == 1, "--options: expected options of quantize, found '{}'", options_);
    require(pipeline.steps[0].options.text("bits") != "auto", "analyze: --bits expects a width, found auto");
    pipeline.steps[0].pass->check(pipeline.steps[0].options);
    return std::move(pipeline.steps[0]);
  }

  // The model behind the passes to run first, at the opset that the quantization needs.
  std::unique_ptr<Model> prepare(const Model& model, const Pipeline& before, const PipelineStep& step, Dataset& data,
                                 Session& session, std::vector<std::string>& notes) const {
    std::unique_ptr<Model> prepared = model.clone();
    const auto run = [&](const Pipeline& pipeline) {
      if (pipeline.steps.empty()) return;
      session.progress().stage("running " + pipeline.to_text());
      RunResult result = run_pipeline(std::move(prepared), pipeline,
                                      {.seed = session.settings().seed,
                                       .threads = session.threads(),
                                       .calibration = &data,
                                       .input_ranges = flags_.ranges()});
      for (const PassRecord& record : result.passes)
        require(!record.rolled_back, "pass {} was rolled back: {}", record.pass, record.failure);
      for (const std::string& note : result.notes) notes.push_back(note);
      prepared = std::move(result.model);
    };
    run(before);
    if (!prepared->functions.empty()) {
      notes.push_back(fmt::format("{} functions were put in place of their calls", prepared->functions.size()));
      inline_functions(*prepared);
    }
    if (const auto* preparing = dynamic_cast<const PreparedPass*>(step.pass))
      for (const std::string& name : preparing->preparations(*prepared, step.options)) {
        run(Pipeline::parse(name));
        notes.push_back(fmt::format("{} was run first, as compress does before quantize", name));
      }
    const std::int64_t needed = step.pass->required_opset(*prepared, step.options);
    if (needed > prepared->graph.opset()) {
      notes.push_back(fmt::format("analyzed at opset {}, which the quantization needs", needed));
      run(Pipeline::parse(fmt::format("upgrade_opset{{target={}}}", needed)));
    }
    return prepared;
  }

  struct Ranked {
    UnitSensitivity found;
    std::vector<Cause> causes;
  };

  Json analyze(const Model& model, const QuantizeRequest& request, PassContext& context, std::int64_t samples,
               Session& session, std::vector<std::string>& notes) const {
    session.progress().stage("quantizing every layer");
    QuantizationTrials trials(model, context, request);
    const std::vector<QuantizedUnit>& units = trials.units();
    require(!units.empty(), "there is nothing to quantize with these options");
    const OutputJudge judge(model, context, samples > 0 ? samples : std::min(usual_samples, affordable_samples(model, units.size())));
    session.progress().stage("gathering statistics");
    Calibration calibration;
    if (request.scheme != Scheme::weights) {
      const CalibrationRequest wanted = diagnosis_request(model, units);
      if (!wanted.values.empty()) calibration = calibrate(model, context, wanted);
      for (const std::string& warning : calibration_warnings(calibration)) notes.push_back(warning);
    }
    std::vector<Ranked> ranked;
    session.progress().stage("measuring layers");
    for (std::size_t unit = 0; unit < units.size(); ++unit) {
      session.progress().advance(static_cast<std::int64_t>(unit), static_cast<std::int64_t>(units.size()));
      Ranked& row = ranked.emplace_back(Ranked{trials.measure(unit, request.weight_bits, judge, true), {}});
      row.causes = diagnose(model, units[unit], request, calibration, row.found.records);
    }
    std::ranges::stable_sort(ranked, std::greater<>(), [](const Ranked& row) { return row.found.quality.noise; });
    return result(request, trials, judge, ranked, session);
  }

  Json result(const QuantizeRequest& request, QuantizationTrials& trials, const OutputJudge& judge,
              const std::vector<Ranked>& ranked, Session& session) const {
    session.progress().stage("measuring what helps");
    const QuantizationTrials::Trial everything = trials.run({});
    Json analysis = {{"samples", judge.samples()},
                     {"generated", judge.generated()},
                     {"bits", request.weight_bits},
                     {"all", quality(judge.judge(*everything.model))}};
    double total = 0, weights = 0, spared = 0;
    for (const QuantizedUnit& unit : trials.units()) weights += static_cast<double>(unit.elements);
    for (const Ranked& row : ranked)
      if (row.found.failure.empty() && std::isfinite(row.found.quality.noise)) total += row.found.quality.noise;
    std::vector<BitsRule> rules;
    Json layers = Json::array();
    for (const Ranked& row : ranked) {
      const QuantizedUnit& unit = trials.units()[row.found.unit];
      const double noise = row.found.quality.noise;
      const double share = total > 0 && std::isfinite(noise) ? noise / total : std::isfinite(noise) ? 0 : 1;
      const double held = static_cast<double>(unit.elements) / std::max(weights, 1.0);
      if (row.found.failure.empty() && share >= large_share && share >= more_than_its_weights * held &&
          spared + held <= most_spared) {
        rules.push_back({unit.selector, wider(request)});
        spared += held;
      }
      layers.push_back(layer(unit, row, share));
    }
    analysis["layers"] = std::move(layers);
    analysis["left"] = Json::array();
    for (const NearMiss& miss : everything.left) analysis["left"].push_back({{"node", miss.subject}, {"reason", miss.reason}});
    analysis["overrides"] = overrides_text(rules);
    analysis["with_overrides"] = rules.empty() ? Json() : quality(judge.judge(*trials.run(rules).model));
    return analysis;
  }

  // What a layer that hurts gets instead: 8 bits for narrower weights, else float.
  static int wider(const QuantizeRequest& request) {
    return request.scheme == Scheme::weights && request.weight_bits < 8 ? 8 : 0;
  }

  static std::string overrides_text(const std::vector<BitsRule>& rules) {
    std::string text;
    for (const BitsRule& rule : rules)
      text += fmt::format("{}{}={}", text.empty() ? "" : ";", rule.selector, rule.bits == 0 ? "float" : std::to_string(rule.bits));
    return text.empty() ? "" : "overrides=" + quote_option_value(text);
  }

  static Json quality(const OutputQuality& found) {
    return {{"snr_db", number(found.snr_db())},
            {"top1_agreement", found.agreement ? Json(*found.agreement) : Json()},
            {"top1", found.accuracy ? Json(*found.accuracy) : Json()}};
  }

  static Json layer(const QuantizedUnit& unit, const Ranked& row, double share) {
    Json causes = Json::array();
    for (const Cause& cause : row.causes)
      causes.push_back({{"cause", cause.name}, {"detail", cause.detail}, {"remedy", cause.remedy}});
    Json layer = {{"node", unit.node},
                  {"op", unit.op},
                  {"weights", unit.elements},
                  {"output_snr_db", row.found.failure.empty() ? number(row.found.quality.snr_db()) : Json()},
                  {"share", share},
                  {"local_snr_db", decibel(row.found.local_snr_db)},
                  {"weight_snr_db", decibel(row.found.weight_snr_db)},
                  {"top1_agreement", row.found.quality.agreement ? Json(*row.found.quality.agreement) : Json()},
                  {"causes", std::move(causes)},
                  {"failure", row.found.failure},
                  {"selector", unit.selector}};
    return layer;
  }

  std::string path_, cache_, calib_, scheme_, bits_, options_, passes_, samples_;
  std::vector<std::string> reports_;
  DataFlags flags_;
};

}  // namespace

std::unique_ptr<Verb> analyze_verb() { return std::make_unique<AnalyzeVerb>(); }

}  // namespace onnxpress
