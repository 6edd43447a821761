#include "tools/session.h"

#include <langinfo.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "graph/base/threads.h"
#include "tools/document.h"

namespace onnxpress {

namespace {

Progress::Mode progress_mode(const Session::Settings& settings) {
  if (settings.quiet) return Progress::Mode::quiet;
  return settings.verbose ? Progress::Mode::verbose : Progress::Mode::automatic;
}

std::string rendered(const Json& report, Format format, bool verbose, const TerminalStyle& style) {
  switch (format) {
    case Format::json:
      return report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
    case Format::markdown:
      return render_markdown(layout(report, verbose));
    case Format::table:
      break;
  }
  return render_terminal(layout(report, verbose), style);
}

}  // namespace

Format format_from_name(const std::string& text) {
  return choose<Format>(
      "--format", text,
      {{"table", Format::table}, {"json", Format::json}, {"md", Format::markdown}});
}

Format format_from_path(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".json") return Format::json;
  if (extension == ".md") return Format::markdown;
  require(extension == ".txt", "--report: expected a name ending in .json, .md or .txt, found '{}'",
          path.string());
  return Format::table;
}

Session::Session(const Settings& settings)
    : settings_(settings), progress_(progress_mode(settings)) {}

int Session::threads() const {
  return settings_.threads > 0 ? settings_.threads : available_cpus();
}

RunInfo Session::run_info(const std::string& verb) const {
  return {.kind = verb, .seed = settings_.seed, .threads = threads()};
}

void Session::message(const std::string& text) {
  if (settings_.quiet) return;
  progress_.clear();
  write_to(STDERR_FILENO, "onnxpress: " + text + "\n");
}

void Session::print(const Json& report, int descriptor) {
  progress_.clear();
  if (settings_.quiet && !settings_.format_given) return;
  const TerminalStyle style{
      .width = isatty(descriptor) == 1 ? terminal_width(descriptor) : 120,
      .colour = wants_colour(descriptor),
      .utf8 = isatty(descriptor) == 1 && std::string_view(nl_langinfo(CODESET)) == "UTF-8"};
  write_to(descriptor, rendered(report, settings_.format, settings_.verbose, style));
}

void stage_reports(const std::vector<std::string>& paths, const Json& report, StagedFiles& staged) {
  for (const std::string& path : paths) {
    const std::string text = rendered(report, format_from_path(path), true, {.width = 120});
    staged.add(path, [&](StagedFiles::Sink& sink) { sink.write(std::as_bytes(std::span(text))); });
  }
}

void check_report_paths(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    format_from_path(path);
    check_writable(path);
  }
}

void refuse_overwriting(const std::string& output, const std::vector<std::string>& inputs) {
  for (const std::string& input : inputs) {
    std::error_code none;
    if (output != "-" && std::filesystem::equivalent(output, input, none) &&
        std::filesystem::is_regular_file(input, none))
      fail("{} is read by this very run and would be overwritten", output);
  }
}

void check_writable(const std::filesystem::path& path) {
  StagedFiles probe;
  probe.add(path, [](StagedFiles::Sink&) {});
}

void WatchedDataset::rewind() {
  data_->rewind();
  done_ = 0;
}

bool WatchedDataset::next(Batch& batch) {
  progress_->advance(done_, data_->samples());
  if (!data_->next(batch)) return false;
  done_ += batch.samples;
  return true;
}

Judge::Judge(Dataset& data, EvaluationOptions options, Progress& progress)
    : data_(data, progress), options_(std::move(options)), progress_(&progress) {}

const Evaluation& Judge::judge(const Model& model, const std::string& what) {
  const Hash128 hash = structural_hash(model);
  const auto known = known_.find(hash);
  if (known != known_.end()) return known->second;
  progress_->stage("evaluating " + what);
  data_.rewind();
  return known_.emplace(hash, evaluate(model, data_, options_)).first->second;
}

std::vector<OutputError> measure_errors(const Model& reference, const Model& other, Dataset& data,
                                        Session& session) {
  session.progress().stage("comparing outputs");
  WatchedDataset watched(data, session.progress());
  watched.rewind();
  return compare_outputs(reference, other, watched, session.threads());
}

std::optional<double> lowest_agreement(const std::vector<OutputError>& errors) {
  std::optional<double> lowest;
  for (const OutputError& error : errors)
    if (error.top1_agreement) lowest = std::min(lowest.value_or(1.0), *error.top1_agreement);
  return lowest;
}

}  // namespace onnxpress
