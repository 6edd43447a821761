// Options that verbs have in common which change a model and measure what it cost.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tools/compress.h"
#include "tools/flags.h"

namespace onnxpress {

class CompressFlags {
 public:
  void declare_output(CLI::App& app, CompressJob& job);
  void declare_data(CLI::App& app, CompressJob& job);  // and gates
  void declare_teacher(CLI::App& app) { teacher_.declare(app); }
  bool teacher_given() const { return teacher_.given(); }
  const GateFlags& gates() const { return gates_; }
  // What was said, into the job; throws Error naming the option.
  void fill(CompressJob& job, const Session& session) const;

 private:
  std::string external_ = "auto", attribution_ = "auto";
  MetricFlag metric_;
  DataFlags data_;
  TrainingFlags training_;
  TeacherFlags teacher_;
  GateFlags gates_;
  DeflatedFlag deflated_;
};

}  // namespace onnxpress
