// The work of `onnxpress compress`, apart from its command line.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graph/onnx/writer.h"
#include "passes/core/pipeline.h"
#include "tools/data/data.h"
#include "tools/gates.h"
#include "tools/session.h"
#include "tools/teacher_flags.h"
#include "tools/training_flags.h"

namespace onnxpress {

enum class Attribution { automatic, on, off };

// Everything that was asked for, checked.
struct CompressJob {
  std::string kind = "compress";  // the verb
  std::string input, output;  // "-": standard input, standard output
  std::string recipe;         // the file that the pipeline came from; may be empty
  Pipeline pipeline;
  std::string calib, calib_cache, eval;
  TrainingJob training;
  TeacherJob teacher;
  std::optional<Metric> metric;
  DataOptions data_options;
  InputRanges ranges;
  InputShapes shapes;
  std::map<std::string, std::string> preprocessing;  // as said, for the report
  GateLimits limits;
  std::vector<std::string> reports;
  std::string reproducers;
  Attribution attribution = Attribution::automatic;
  ExternalData external = ExternalData::as_read;
  DeflatedSize deflated = DeflatedSize::automatic;
  bool require_verified = false;
  bool keep_going = false;
  bool write_anyway = false;
  bool keep_overridable = false;
  bool explain = false;
  std::string explain_rule;  // empty: all

  // By something else than the report, which then goes to standard error.
  bool takes_standard_output() const { return output == "-" || training.log == "-"; }
};

// Returns an exit status. Throws Error when it cannot be done: nothing is written then.
int run_compress(const CompressJob& job, Session& session);

}  // namespace onnxpress
