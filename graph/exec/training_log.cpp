#include "graph/exec/training_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <optional>

#include "graph/base/descriptor.h"
#include "graph/exec/event_file.h"

namespace onnxpress {
namespace {

// One object of numbers.
class Line {
 public:
  explicit Line(std::string_view type) : text_(fmt::format(R"({{"type":"{}")", type)) {}

  Line& add(std::string_view key, std::int64_t value) {
    text_ += fmt::format(R"(,"{}":{})", key, value);
    return *this;
  }
  Line& add(std::string_view key, std::optional<double> value) {
    text_ += fmt::format(R"(,"{}":{})", key, number(value));
    return *this;
  }
  Line& add(std::string_view key, const std::vector<double>& values) {
    std::vector<std::string> numbers;
    for (const double value : values) numbers.push_back(number(value));
    text_ += fmt::format(R"(,"{}":[{}])", key, fmt::join(numbers, ","));
    return *this;
  }
  std::string finish() const { return text_ + "}\n"; }

 private:
  static std::string number(std::optional<double> value) {
    return value && std::isfinite(*value) ? fmt::format("{}", *value) : "null";
  }
  std::string text_;
};

}  // namespace

struct TrainingLog::State {
  TrainingLogFiles files;
  Descriptor lines;
  std::unique_ptr<EventFile> events;
  // Since the last record.
  double loss = 0;
  std::vector<double> terms;
  std::int64_t batches = 0, written = 0;  // the step of the last record
  std::int64_t before = 0, last = 0;      // steps of earlier trainings, and of this one

  void write(const Line& line) const {
    if (!lines) return;
    const std::string text = line.finish();
    if (!write_fully(lines.get(), std::as_bytes(std::span(text))))
      fail("cannot write '{}': {}", files.json_lines.string(), std::strerror(errno));
  }
};

TrainingLog::TrainingLog(TrainingLogFiles files) : state_(std::make_unique<State>()) {
  require(files.every > 0, "expected a record for at least one step, found {}", files.every);
  state_->files = std::move(files);
  const std::filesystem::path& path = state_->files.json_lines;
  if (!path.empty()) {
    const int mode = O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (state_->files.append ? 0 : O_TRUNC);
    state_->lines = Descriptor(::open(path.c_str(), mode, 0644));
    if (!state_->lines) fail("cannot write '{}': {}", path.string(), std::strerror(errno));
  }
  if (!state_->files.tensorboard.empty()) state_->events = std::make_unique<EventFile>(state_->files.tensorboard);
}

TrainingLog::~TrainingLog() = default;

void TrainingLog::begin(const FitStart& start) {
  State& s = *state_;
  s.before += s.last;
  s.written = s.last = 0;
  s.write(Line("begin")
              .add("samples", start.samples)
              .add("held_out", start.held_out)
              .add("epochs", start.epochs)
              .add("batch", start.batch)
              .add("first_epoch", start.first_epoch));
}

void TrainingLog::step(const StepRecord& record) {
  State& s = *state_;
  s.last = record.step;
  s.loss += record.loss;
  s.terms.resize(record.terms.size(), 0);
  for (std::size_t i = 0; i < record.terms.size(); ++i) s.terms[i] += record.terms[i];
  ++s.batches;
  // Batches of an accumulation share a step; the last of an epoch is never left out.
  const bool is_due = record.step >= s.written + s.files.every || record.done >= record.total;
  if (record.step == s.written || !is_due) return;
  const auto count = static_cast<double>(s.batches);
  std::vector<double> terms;
  for (const double term : s.terms) terms.push_back(term / count);
  const double loss = s.loss / count;
  s.write(Line("step")
              .add("step", record.step)
              .add("epoch", record.epoch)
              .add("done", record.done)
              .add("total", record.total)
              .add("loss", std::optional(loss))
              .add("terms", terms)
              .add("learning_rate", std::optional(record.rate))
              .add("gradient_norm", record.norm > 0 ? std::optional(record.norm) : std::nullopt));
  if (s.events) {
    std::vector<std::pair<std::string, double>> scalars{{"train/loss", loss}, {"train/learning_rate", record.rate}};
    for (std::size_t i = 0; i < terms.size(); ++i) scalars.emplace_back(fmt::format("train/loss_{}", i + 1), terms[i]);
    if (record.norm > 0) scalars.emplace_back("train/gradient_norm", record.norm);
    s.events->add(s.before + record.step, scalars);
  }
  s.written = record.step;
  s.loss = 0;
  s.terms.clear();
  s.batches = 0;
}

void TrainingLog::epoch(const EpochRecord& record) {
  state_->write(Line("epoch")
                    .add("epoch", record.epoch)
                    .add("step", record.step)
                    .add("loss", std::optional(record.loss))
                    .add("held_out_loss", record.held_loss)
                    .add("held_out_accuracy", record.held_accuracy)
                    .add("learning_rate", std::optional(record.rate))
                    .add("samples", record.samples)
                    .add("seconds", std::optional(record.seconds)));
  if (!state_->events) return;
  std::vector<std::pair<std::string, double>> scalars{{"epoch/loss", record.loss}};
  if (record.held_loss) scalars.emplace_back("epoch/held_out_loss", *record.held_loss);
  if (record.held_accuracy) scalars.emplace_back("epoch/held_out_accuracy", *record.held_accuracy);
  if (record.seconds > 0)
    scalars.emplace_back("epoch/samples_per_second", static_cast<double>(record.samples) / record.seconds);
  state_->events->add(state_->before + record.step, scalars);
}

FitObserver TrainingLog::observer(std::shared_ptr<TrainingLog> log, FitObserver further) {
  return {.begin =
              [log, next = further.begin](const FitStart& start) {
                if (next) next(start);
                log->begin(start);
              },
          .step =
              [log, next = further.step](const StepRecord& record) {
                if (next) next(record);
                log->step(record);
              },
          .epoch =
              [log, next = further.epoch](const EpochRecord& record) {
                if (next) next(record);
                log->epoch(record);
              }};
}

}  // namespace onnxpress
