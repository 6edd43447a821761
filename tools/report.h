// The report: one JSON document ("onnxpress.report/1", docs/report.md), built here and nowhere
// else. Tables and Markdown are renderings of it (tools/render.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "graph/exec/metrics.h"
#include "graph/exec/stats.h"
#include "passes/core/registry.h"
#include "passes/core/runner.h"
#include "tools/gates.h"
#include "tools/latency.h"
#include "tools/model_file.h"

namespace onnxpress {

inline constexpr const char* report_schema = "onnxpress.report/1";

// What every report of a run says about how it was made.
struct RunInfo {
  std::string kind;  // the verb
  std::uint64_t seed = 0;
  int threads = 0;  // as used
};

// The fields all reports share.
Json report_header(const RunInfo& run);

// A finite number, or "inf", "-inf", "nan": JSON has no such numbers.
Json number(double value);

// Size, structure and weight of one model. `tensors` limits the list of largest tensors.
Json model_section(const ModelFile& file, const Model& model, const ModelStats& stats,
                   std::size_t tensors);
// Inputs, outputs, functions, metadata and what the engine cannot run: for inspect.
Json interface_section(const Model& model);

Json data_section(const Dataset& data);
Json non_finite_section(const NonFinite& found);
Json evaluation_section(const Evaluation& evaluation);
Json errors_section(const std::vector<OutputError>& errors);
Json latency_section(const Latency& latency);
Json gates_section(const std::vector<GateResult>& gates);
Json pass_section(const PassRecord& record);
// Near misses of all passes, with the pass's name; `rule` keeps those of one rule or pass.
Json near_misses_section(const std::vector<PassRecord>& records, const std::string& rule);

// Description of a pass, its options and members, for `passes`.
Json pass_description(const Pass& pass);

}  // namespace onnxpress
