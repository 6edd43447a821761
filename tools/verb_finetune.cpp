// onnxpress finetune MODEL --train DATA -o OUT: trains a model, measures what it changed, writes it.
#include "tools/compress_flags.h"
#include "tools/pass_flags.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

class FinetuneVerb : public Verb {
 public:
  std::string name() const override { return "finetune"; }
  std::string summary() const override {
    return "Trains a model on labelled data, measures what that changed, and writes it. The options under Training are "
           "those of the pass 'finetune'.";
  }
  std::string usage() const override { return "MODEL --train DATA -o OUT [--eval DATA]"; }

  void declare(CLI::App& app) override {
    app.add_option("MODEL", job_.input, "a model, or - for standard input");
    flags_.declare_output(app, job_);
    flags_.declare_data(app, job_);
    pass_.declare(app, "finetune", "Training");
  }

  int run(Session& session) override {
    require(!job_.input.empty(), "finetune: expected a model");
    require(!job_.output.empty(), "finetune: expected -o OUT");
    job_.kind = name();
    job_.pipeline.steps = {pass_.step()};
    flags_.fill(job_, session);
    return run_compress(job_, session);
  }

 private:
  CompressJob job_;
  CompressFlags flags_;
  PassFlags pass_;
};

}  // namespace

std::unique_ptr<Verb> finetune_verb() { return std::make_unique<FinetuneVerb>(); }

}  // namespace onnxpress
