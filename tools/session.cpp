#include "tools/session.h"

#include <langinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "graph/base/threads.h"
#include "tools/data/idx.h"
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
  write_to(STDERR_FILENO, message_line(text));
}

void Session::warn(const std::vector<std::string>& texts) {
  if (texts.empty()) return;
  progress_.clear();
  for (const std::string& text : texts) write_to(STDERR_FILENO, message_line("warning: " + text));
}

void Session::print(const Json& report, int descriptor) {
  progress_.clear();
  if (!prints()) return;
  const TerminalStyle style{
      .width = terminal_width(descriptor),
      .colour = wants_colour(descriptor),
      .utf8 = isatty(descriptor) == 1 && std::string_view(nl_langinfo(CODESET)) == "UTF-8"};
  write_to(descriptor, rendered(report, settings_.format, settings_.verbose, style));
}

void Session::finish(const Json& report, StagedFiles& staged, int descriptor) {
  progress_.clear();
  if (prints() && is_broken_pipe(descriptor)) throw BrokenPipe{};
  staged.commit();
  in_context([] { return "the report (all files are in place)"; },
             [&] { print(report, descriptor); });
}

void stage_reports(const std::vector<std::string>& paths, const Json& report, StagedFiles& staged) {
  for (const std::string& path : paths) {
    const std::string text = rendered(report, format_from_path(path), true, {.width = 80});
    staged.add(path, [&](StagedFiles::Sink& sink) { sink.write(std::as_bytes(std::span(text))); });
  }
}

void check_report_paths(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    format_from_path(path);
    check_writable(path);
  }
}

namespace {

namespace fs = std::filesystem;

bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code none;
  return fs::is_regular_file(a, none) && fs::equivalent(a, b, none);
}

// `output` is `input` or, when that is a folder, one of the files in it.
bool overwrites(const fs::path& output, const fs::path& input) {
  std::error_code error;
  if (!fs::is_directory(input, error)) return same_file(output, input);
  if (fs::is_directory(output, error)) return fs::equivalent(output, input, error);
  if (!fs::is_regular_file(output, error)) return false;
  fs::recursive_directory_iterator entry(input, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error))
    if (same_file(output, entry->path())) return true;
  return false;
}

bool is_a_file(const std::string& name) { return !name.empty() && name != "-"; }

}  // namespace

void refuse_overwriting(const std::vector<std::string>& outputs,
                        const std::vector<std::string>& inputs) {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!is_a_file(outputs[i])) continue;
    for (const std::string& input : inputs) {
      if (!is_a_file(input)) continue;
      std::error_code none;
      const std::optional<fs::path> labels =
          fs::is_regular_file(input, none) ? idx_labels_beside(input) : std::nullopt;
      require(!overwrites(outputs[i], input) && !(labels && overwrites(outputs[i], *labels)),
              "{} is read by this very run and would be overwritten", outputs[i]);
    }
    for (std::size_t k = 0; k < i; ++k) {
      std::error_code none;
      const bool same =
          is_a_file(outputs[k]) && (same_file(outputs[i], outputs[k]) ||
                                    (!fs::exists(outputs[i], none) &&
                                     fs::weakly_canonical(fs::absolute(outputs[i]), none) ==
                                         fs::weakly_canonical(fs::absolute(outputs[k]), none)));
      require(!same, "{} and {} are the same file: one output would overwrite the other",
              outputs[k], outputs[i]);
    }
  }
}

std::vector<std::string> joined(std::vector<std::string> first,
                                const std::vector<std::string>& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

void check_writable(const std::filesystem::path& path) {
  StagedFiles probe;
  probe.add(path, [](StagedFiles::Sink&) {});
}

void check_folder(const std::string& option, const fs::path& path) {
  fs::path there = fs::absolute(path);
  std::error_code none;
  while (!fs::exists(there, none) && there.has_relative_path()) there = there.parent_path();
  require(fs::is_directory(there, none), "{}: cannot make the folder '{}': '{}' is a file", option, path.native(),
          there.native());
  require(::access(there.c_str(), W_OK | X_OK) == 0, "{}: cannot write into the folder '{}': {}", option,
          there.native(), std::strerror(errno));
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
