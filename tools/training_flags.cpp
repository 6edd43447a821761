#include "tools/training_flags.h"

#include <chrono>
#include <limits>
#include <memory>
#include <utility>

#include "graph/base/error.h"
#include "graph/exec/training_log.h"
#include "passes/core/pass.h"
#include "tools/flags.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

using Clock = std::chrono::steady_clock;

// The line of a training: loss, metric, samples a second, time left.
class TrainingProgress {
 public:
  explicit TrainingProgress(Session& session) : session_(session) {}

  void begin(const FitStart& start) {
    start_ = start;
    began_ = Clock::now();
    seen_ = 0;
    held_ = "";
    const std::string held = start.held_out > 0 ? fmt::format(", {} held out", grouped(start.held_out)) : "";
    session_.progress().stage(fmt::format("training on {} samples{}", grouped(start.samples), held));
  }

  void step(const StepRecord& step) {
    const std::int64_t total = start_.epochs * step.total;
    const std::int64_t done = (step.epoch - 1) * step.total + step.done;
    if (seen_ == 0) first_ = done;  // a resumed run begins in the middle
    seen_ = done - first_;
    const double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
    std::string text = fmt::format("epoch {} of {}: loss {:.4g}{}", step.epoch, start_.epochs, step.loss, held_);
    if (seen_ > 0 && seconds >= 1) {
      const double rate = static_cast<double>(seen_) / seconds;
      text += fmt::format(", {:.3g} samples/s, {} left", rate, human_seconds(static_cast<double>(total - done) / rate));
    }
    session_.progress().advance(done, total, text);
  }

  void epoch(const EpochRecord& epoch) {
    if (!epoch.held_loss) return;
    held_ = fmt::format(", held out {:.4g}", *epoch.held_loss);
    if (epoch.held_accuracy) held_ += fmt::format(" ({:.2f} %)", *epoch.held_accuracy * 100);
  }

 private:
  Session& session_;
  FitStart start_;
  Clock::time_point began_;
  std::int64_t first_ = 0, seen_ = 0;
  std::string held_;
};

}  // namespace

void TrainingFlags::declare(CLI::App& app) {
  const std::string group = "Data";
  app.add_option("--train", job_.data, "samples that passes train on; a part of them is held out, --eval is never used")
      ->type_name("DATA")
      ->group(group);
  app.add_option("--train-labels", job_.labels, "labels of --train from another file (.npy, .npz, IDX)")
      ->type_name("FILE")
      ->group(group);
  const std::string training = "Training";
  app.add_option("--checkpoint", job_.checkpoint, "keep the state of the training in a file, after every epoch")
      ->type_name("FILE")
      ->group(training);
  app.add_option("--checkpoint-updates", updates_, "and after every N updates")->type_name("N")->group(training);
  app.add_flag("--resume", job_.resume, "go on from --checkpoint, if it is there: the result is the same, bit for bit")
      ->group(training);
  app.add_option("--log", job_.log,
                 "write losses as they are, one JSON object a line; - is standard output, the report goes to standard "
                 "error")
      ->type_name("FILE")
      ->group(training);
  app.add_option("--tensorboard", job_.tensorboard,
                 "write losses as an event file that TensorBoard shows, into a folder")
      ->type_name("DIR")
      ->group(training);
  app.add_option("--log-every", every_, "updates that one record of both stands for (default: 1)")
      ->type_name("N")
      ->group(training);
}

TrainingJob TrainingFlags::job() const {
  TrainingJob job = job_;
  require(!job.data.empty() || job.labels.empty(), "--train-labels: expected --train DATA, found none");
  require(!job.data.empty() || job.checkpoint.empty(), "--checkpoint: expected --train DATA, found none");
  require(!job.checkpoint.empty() || !job.resume, "--resume: expected --checkpoint FILE, found none");
  require(!job.checkpoint.empty() || updates_.empty(), "--checkpoint-updates: expected --checkpoint FILE, found none");
  const bool logs = !job.log.empty() || !job.tensorboard.empty();
  require(!job.data.empty() || !logs, "--log, --tensorboard: expected --train DATA, found none");
  require(logs || every_.empty(), "--log-every: expected --log FILE or --tensorboard DIR, found neither");
  if (!every_.empty())
    job.log_every = parse_integer("--log-every", every_, 1, std::numeric_limits<std::int64_t>::max());
  if (!updates_.empty())
    job.checkpoint_updates =
        parse_integer("--checkpoint-updates", updates_, 1, std::numeric_limits<std::int64_t>::max());
  return job;
}

TrainingSupport training_support(const TrainingJob& job) {
  return {.checkpoint = job.checkpoint, .resume = job.resume, .checkpoint_updates = job.checkpoint_updates};
}

std::function<FitObserver(const std::string& pass)> training_observers(const TrainingJob& job, Session& session) {
  const auto progress = std::make_shared<TrainingProgress>(session);
  std::shared_ptr<TrainingLog> log;
  if (!job.log.empty() || !job.tensorboard.empty())
    log = std::make_shared<TrainingLog>(TrainingLogFiles{
        .json_lines = job.log, .tensorboard = job.tensorboard, .every = job.log_every, .append = job.resume});
  return [progress, log](const std::string& pass) {
    FitObserver observer{.begin = [progress](const FitStart& start) { progress->begin(start); },
                         .step = [progress](const StepRecord& step) { progress->step(step); },
                         .epoch = [progress](const EpochRecord& epoch) { progress->epoch(epoch); }};
    return log ? TrainingLog::observer(log, pass, std::move(observer)) : observer;
  };
}

}  // namespace onnxpress
