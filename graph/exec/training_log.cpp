#include "graph/exec/training_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <string_view>

#include "graph/base/descriptor.h"
#include "graph/exec/event_file.h"

namespace onnxpress {
namespace {

// One object of numbers, of a training of a pass.
class Line {
 public:
  Line(std::string_view type, std::string_view pass, std::int64_t training)
      : text_(fmt::format(R"({{"type":"{}","pass":"{}","training":{})", type, pass, training)) {}

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

// The number of a member of a line, as Line writes it; nothing where there is none.
std::optional<std::int64_t> member(std::string_view line, std::string_view key) {
  const std::string name = fmt::format(R"("{}":)", key);
  const std::size_t at = line.find(name);
  std::int64_t value = 0;
  if (at == std::string_view::npos) return std::nullopt;
  const auto [end, error] = std::from_chars(line.data() + at + name.size(), line.data() + line.size(), value);
  return error == std::errc{} ? std::optional(value) : std::nullopt;
}

// Where a training is when it goes on: what it records next.
struct Place {
  std::int64_t training = 0;
  std::int64_t epoch = 0;
  std::optional<std::int64_t> done;  // samples of the epoch; nothing: all of them, and the epoch's record comes
};

// Whether a line is of what comes now again. Lines of others are not.
bool comes_again(std::string_view line, const Place& place) {
  const auto training = member(line, "training"), epoch = member(line, "epoch");
  if (!training || *training < place.training) return false;
  if (*training > place.training) return true;
  if (!epoch || *epoch < place.epoch) return false;
  const auto done = member(line, "done");
  return *epoch > place.epoch || !done || (place.done && *done >= *place.done);
}

}  // namespace

struct TrainingLog::State {
  TrainingLogFiles files;
  Descriptor lines;
  std::unique_ptr<EventFile> events;
  std::string pass;
  std::int64_t training = 0;
  bool goes_on = false;  // nothing was recorded yet of a training that may go on
  // Since the last record.
  double loss = 0;
  std::vector<double> terms;
  std::int64_t batches = 0, written = 0;  // the step of the last record

  Line line(std::string_view type) const { return {type, pass, training}; }

  [[noreturn]] void fail_to_write() const {
    fail("cannot write {}: {}",
         files.json_lines == "-" ? "standard output" : fmt::format("'{}'", files.json_lines.string()),
         std::strerror(errno));
  }

  void write(const Line& line) const {
    if (!lines) return;
    const std::string text = line.finish();
    if (!write_fully(lines.get(), std::as_bytes(std::span(text)))) fail_to_write();
  }

  void open_lines() {
    if (files.json_lines.empty() || lines) return;
    const int mode = O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (files.append ? 0 : O_TRUNC);
    const bool is_standard_output = files.json_lines == "-";
    lines = Descriptor(is_standard_output ? ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)
                                          : ::open(files.json_lines.c_str(), mode, 0644));
    if (!lines) fail_to_write();
    if (!may_hold_lines()) return;
    std::uintmax_t end = 0;  // a line that was being written when a run was killed is none
    read_lines([&](std::string_view line, std::uintmax_t begin) {
      end = begin + line.size() + 1;
      return true;
    });
    cut(end);
  }

  bool may_hold_lines() const {
    return files.append && lines && files.json_lines != "-" && std::filesystem::is_regular_file(files.json_lines);
  }

  void cut(std::uintmax_t size) const {
    if (::ftruncate(lines.get(), static_cast<off_t>(size)) != 0) fail_to_write();
  }

  // Calls `use` with every whole line of the file, and where it begins, until that is false.
  void read_lines(const std::function<bool(std::string_view line, std::uintmax_t begin)>& use) const {
    std::ifstream file(files.json_lines, std::ios::binary);
    std::uintmax_t begin = 0;
    for (std::string line; std::getline(file, line) && !file.eof(); begin += line.size() + 1)
      if (!use(line, begin)) return;
  }

  bool has_begun() const {
    bool found = false;
    if (may_hold_lines())
      read_lines([&](std::string_view line, std::uintmax_t) {
        return !(found = line.starts_with(R"({"type":"begin")") && member(line, "training") == training);
      });
    return found;
  }

  // Cuts off what earlier runs wrote of what comes now again: records are in order. `step` is that of the next record,
  // where one of a step comes next.
  void drop_what_comes_again(const Place& place, std::optional<std::int64_t> step) {
    if (!std::exchange(goes_on, false)) return;
    if (events && step) events->restart(*step);
    if (!may_hold_lines()) return;
    std::uintmax_t end = 0;
    read_lines([&](std::string_view line, std::uintmax_t begin) {
      if (comes_again(line, place)) return false;
      end = begin + line.size() + 1;
      if (member(line, "training") == training && member(line, "done")) written = member(line, "step").value_or(0);
      return true;
    });
    cut(end);
  }
};

TrainingLog::TrainingLog(TrainingLogFiles files) : state_(std::make_unique<State>()) {
  require(files.every > 0, "expected a record for at least one step, found {}", files.every);
  state_->files = std::move(files);
}

TrainingLog::~TrainingLog() = default;

void TrainingLog::begin(const std::string& pass, const FitStart& start) {
  State& s = *state_;
  s.pass = pass;
  ++s.training;
  s.goes_on = s.files.append;
  s.written = s.batches = 0;
  s.loss = 0;
  s.terms.clear();
  s.open_lines();
  const std::filesystem::path& folder = s.files.tensorboard;
  s.events.reset();
  if (!folder.empty() && start.first_epoch <= start.epochs)
    s.events =
        std::make_unique<EventFile>(s.training == 1 ? folder : folder / fmt::format("{}-{}", s.training, s.pass));
  if (s.has_begun()) return;
  s.write(s.line("begin")
              .add("samples", start.samples)
              .add("held_out", start.held_out)
              .add("epochs", start.epochs)
              .add("batch", start.batch)
              .add("first_epoch", start.first_epoch));
}

void TrainingLog::step(const StepRecord& record) {
  State& s = *state_;
  s.drop_what_comes_again({s.training, record.epoch, record.done}, record.step);
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
  s.write(s.line("step")
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
    s.events->add(record.step, scalars);
  }
  s.written = record.step;
  s.loss = 0;
  s.terms.clear();
  s.batches = 0;
}

void TrainingLog::epoch(const EpochRecord& record) {
  State& s = *state_;
  s.drop_what_comes_again({s.training, record.epoch, std::nullopt}, std::nullopt);
  s.write(s.line("epoch")
              .add("epoch", record.epoch)
              .add("step", record.step)
              .add("loss", std::optional(record.loss))
              .add("held_out_loss", record.held_loss)
              .add("held_out_accuracy", record.held_accuracy)
              .add("learning_rate", std::optional(record.rate))
              .add("samples", record.samples)
              .add("seconds", std::optional(record.seconds)));
  if (!s.events) return;
  std::vector<std::pair<std::string, double>> scalars{{"epoch/loss", record.loss}};
  if (record.held_loss) scalars.emplace_back("epoch/held_out_loss", *record.held_loss);
  if (record.held_accuracy) scalars.emplace_back("epoch/held_out_accuracy", *record.held_accuracy);
  if (record.seconds > 0)
    scalars.emplace_back("epoch/samples_per_second", static_cast<double>(record.samples) / record.seconds);
  s.events->add(record.step, scalars);
}

FitObserver TrainingLog::observer(std::shared_ptr<TrainingLog> log, std::string pass, FitObserver further) {
  return {.begin =
              [log, pass = std::move(pass), next = further.begin](const FitStart& start) {
                if (next) next(start);
                log->begin(pass, start);
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
