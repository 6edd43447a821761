// onnxpress passes [NAME]: what passes there are.
#include "passes/core/pipeline.h"
#include "passes/core/registry.h"
#include "tools/cli.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

class PassesVerb : public Verb {
 public:
  std::string name() const override { return "passes"; }
  std::string summary() const override {
    return "Lists every pass with its effect and needs, or one pass with its options.";
  }
  std::string usage() const override { return "[NAME]"; }

  void declare(CLI::App& app) override { app.add_option("NAME", pass_, "a pass"); }

  int run(Session& session) override {
    Json report = report_header(session.run_info(name()));
    report["headline"] = "";
    report["detail"] = !pass_.empty();
    report["passes"] = Json::array();
    if (pass_.empty()) {
      for (const Pass* pass : passes().all()) report["passes"].push_back(pass_description(*pass));
    } else {
      report["passes"].push_back(pass_description(passes().find(pass_)));
    }
    report["presets"] = Json::object();
    report["preset_effects"] = Json::object();
    report["effects"] = Json::object();
    if (pass_.empty()) {
      for (const auto& [preset, pipeline] : presets()) {
        report["presets"][preset] = pipeline;
        const Effect effect = Pipeline::parse(pipeline).effect();
        report["preset_effects"][preset] =
            fmt::format("{}: {}", onnxpress::name(effect), meaning(effect));
      }
      for (const Effect effect :
           {Effect::exact, Effect::rounding, Effect::approximate, Effect::lossy})
        report["effects"][std::string(onnxpress::name(effect))] = meaning(effect);
    }
    session.print(report);
    return status_done;
  }

 private:
  std::string pass_;
};

}  // namespace

std::unique_ptr<Verb> passes_verb() { return std::make_unique<PassesVerb>(); }

}  // namespace onnxpress
