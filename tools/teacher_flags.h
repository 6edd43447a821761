// Teachers of passes that distil: models, and how they read the training data.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "passes/core/pass.h"
#include "tools/flags.h"

namespace onnxpress {

struct TeacherJob {
  std::vector<std::string> models;  // --teacher; empty: the model that the pipeline is given
  std::vector<double> weights;      // as many, or none: all alike
  std::string cache;                // --teacher-cache
  bool has_cache_folder() const;    // it is one, is called one (at the end a '/'), or holds what several teachers give
  DataOptions data_options;         // those of the student where nothing else was said
  bool reads_otherwise = false;
  std::map<std::string, std::string> preprocessing;  // as said, for the report
};

class TeacherFlags {
 public:
  void declare(CLI::App& app);
  bool given() const { return !models_.empty(); }
  // The student's options are those that nothing else is said of. Throws Error naming the option.
  TeacherJob job(const DataOptions& student) const;

 private:
  std::string models_, weights_, cache_;
  ReadingTexts reading_;
};

// Teachers that were read, with the training data as each reads it.
class LoadedTeachers {
 public:
  // `train`, `labels` as --train says. Throws Error for models that cannot be read or run, and for data that does not
  // fit them.
  LoadedTeachers(const TeacherJob& job, const std::string& train,
                 const std::map<std::string, std::string>& preprocessing);

  // They point into this object.
  const std::vector<TeacherSource>& sources() const { return sources_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::vector<std::string>& notes() const { return notes_; }
  Json section() const;  // for the report: path, hash and weight of each

 private:
  std::vector<std::unique_ptr<Model>> models_;
  std::vector<std::unique_ptr<Dataset>> data_;
  std::vector<std::string> hashes_, warnings_, notes_;
  std::vector<TeacherSource> sources_;
};

}  // namespace onnxpress
