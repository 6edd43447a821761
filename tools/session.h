// What every verb is given: global options, where results go, progress.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/files.h"
#include "graph/base/hash.h"
#include "graph/exec/metrics.h"
#include "tools/report.h"
#include "tools/terminal.h"

namespace onnxpress {

enum class Format { table, json, markdown };

// Throws Error with the nearest name.
Format format_from_name(const std::string& text);
// By a report's file name: .json, .md, .txt. Throws Error for others.
Format format_from_path(const std::filesystem::path& path);
// The value of `text` in `choices`; throws Error naming the nearest and all of them.
template <class T>
T choose(const std::string& option, const std::string& text,
         const std::vector<std::pair<std::string, T>>& choices);

class Session {
 public:
  struct Settings {
    Format format = Format::table;
    bool format_given = false;
    bool quiet = false, verbose = false;
    int threads = 0;  // 0: all available
    std::uint64_t seed = 0;
    std::vector<std::string> plugins;  // files that were loaded
  };
  explicit Session(const Settings& settings);

  const Settings& settings() const { return settings_; }
  Progress& progress() { return progress_; }
  int threads() const;  // as used
  RunInfo run_info(const std::string& verb) const;

  // A line on standard error, unless --quiet.
  void message(const std::string& text);
  // Lines on standard error that begin with "warning", with --quiet too.
  void warn(const std::vector<std::string>& texts);
  // The report on `descriptor`; nothing with --quiet unless a format was asked for.
  void print(const Json& report, int descriptor = 1);
  // Puts the files in place and then prints the report: nothing claims what is not so. A reader of
  // the report that has gone already ends the run before (BrokenPipe).
  void finish(const Json& report, StagedFiles& staged, int descriptor = 1);

  // Whether print() does anything.
  bool prints() const { return !settings_.quiet || settings_.format_given; }

 private:
  Settings settings_;
  Progress progress_;
};

// Stages one report per path, its format by its name.
void stage_reports(const std::vector<std::string>& paths, const Json& report, StagedFiles& staged);
// Throws Error unless every path can be written; leaves nothing behind. Names are checked too.
void check_report_paths(const std::vector<std::string>& paths);
// Throws Error when an output exists and is (by device and inode) one of `inputs`, a file of a
// folder among them, or the labels that belong to an IDX file among them; or when two outputs are
// the same file. Empty names and "-" are nothing.
void refuse_overwriting(const std::vector<std::string>& outputs,
                        const std::vector<std::string>& inputs);
// `first` and what `more` has.
std::vector<std::string> joined(std::vector<std::string> first,
                                const std::vector<std::string>& more);
void check_writable(const std::filesystem::path& path);
// Throws Error unless a file can be made in the folder, which may have to be made first; makes nothing.
void check_folder(const std::string& option, const std::filesystem::path& path);

// A dataset that shows how far it was read.
class WatchedDataset : public Dataset {
 public:
  WatchedDataset(Dataset& data, Progress& progress) : data_(&data), progress_(&progress) {}
  std::int64_t samples() const override { return data_->samples(); }
  bool labelled() const override { return data_->labelled(); }
  void rewind() override;
  bool next(Batch& batch) override;
  std::string description() const override { return data_->description(); }
  std::string hash() const override { return data_->hash(); }
  bool generated() const override { return data_->generated(); }

 private:
  Dataset* data_;
  Progress* progress_;
  std::int64_t done_ = 0;
};

// Evaluates models on one dataset; a model that equals an earlier one is not run again.
class Judge {
 public:
  Judge(Dataset& data, EvaluationOptions options, Progress& progress);
  const Evaluation& judge(const Model& model, const std::string& what);

 private:
  WatchedDataset data_;
  EvaluationOptions options_;
  Progress* progress_;
  std::map<Hash128, Evaluation> known_;
};

// compare_outputs with progress.
std::vector<OutputError> measure_errors(const Model& reference, const Model& other, Dataset& data,
                                        Session& session);
// Lowest agreement of all outputs that have one.
std::optional<double> lowest_agreement(const std::vector<OutputError>& errors);

template <class T>
T choose(const std::string& option, const std::string& text,
         const std::vector<std::pair<std::string, T>>& choices) {
  std::vector<std::string> names;
  for (const auto& [name, value] : choices) {
    if (name == text) return value;
    names.push_back(name);
  }
  fail("{}: expected {}, found '{}'", option, fmt::join(names, ", "), text);
}

}  // namespace onnxpress
