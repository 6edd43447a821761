// onnxpress distill --teacher T --student S --train DATA -o OUT: trains a smaller model after a
// larger one, measures it, writes it.
#include <string_view>

#include "tools/compress_flags.h"
#include "tools/pass_flags.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

constexpr std::string_view derived = "auto:";

class DistillVerb : public Verb {
 public:
  std::string name() const override { return "distill"; }
  std::string summary() const override {
    return "Trains a student after a teacher, measures it, and writes it. The options under Training are those of "
           "the "
           "pass 'distill'.";
  }
  std::string usage() const override {
    return "--teacher T --student S|auto:width=0.5,depth=0.5 --train DATA -o OUT";
  }

  void declare(CLI::App& app) override {
    app.add_option("--student", student_,
                   "the model to train; or auto:OPTIONS: the (first) teacher made smaller, by options of the pass "
                   "'derive_student'")
        ->type_name("MODEL|auto:...");
    flags_.declare_output(app, job_);
    flags_.declare_data(app, job_);
    flags_.declare_teacher(app);
    pass_.declare(app, "distill", "Training");
  }

  int run(Session& session) override {
    require(flags_.teacher_given(), "distill: expected --teacher MODEL");
    require(!student_.empty(), "distill: expected --student MODEL, or --student auto:width=0.5");
    require(!job_.output.empty(), "distill: expected -o OUT");
    require(student_ != "auto", "--student auto: expected what the student keeps, as in auto:width=0.5,depth=0.5");
    job_.kind = name();
    const bool is_derived = student_.starts_with(derived);
    if (is_derived) {
      const std::string options = student_.substr(derived.size());
      in_context([] { return "--student"; },
                 [&] {
                   job_.pipeline = Pipeline::parse(fmt::format("derive_student{{{}}}", options));
                   for (const PipelineStep& step : job_.pipeline.steps) step.pass->check(step.options);
                 });
    } else {
      job_.input = student_;
    }
    job_.pipeline.steps.push_back(pass_.step());
    flags_.fill(job_, session);
    if (is_derived) job_.input = job_.teacher.models.front();
    return run_compress(job_, session);
  }

 private:
  std::string student_;
  CompressJob job_;
  CompressFlags flags_;
  PassFlags pass_;
};

}  // namespace

std::unique_ptr<Verb> distill_verb() { return std::make_unique<DistillVerb>(); }

}  // namespace onnxpress
