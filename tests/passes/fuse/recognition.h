// Shared by the tests of passes that recognise written-out operators.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {

// Operators of the main graph, in order: "LayerNormalization com.microsoft.Gelu".
inline std::string operators_of(const Model& model) {
  std::string text;
  for (const Node* node : model.graph.nodes()) {
    if (!text.empty()) text += ' ';
    if (!node->domain().empty()) text += node->domain() + '.';
    text += node->op_type();
  }
  return text;
}

// The step leaves these operators, outputs are equal, a second run changes nothing.
inline PassRun check_fused(const std::string& step, const std::string& text,
                           const std::string& operators) {
  CAPTURE(text);
  PassRun run = run_pass(step, parse_model(text));
  CHECK(run.outcome.changed);
  CHECK(operators_of(*run.after) == operators);
  CHECK_FALSE(run_pass(step, run.after->clone()).outcome.changed);
  return run;
}

inline void check_refused(const std::string& step, const std::string& rule, const std::string& text,
                          const std::string& reason) {
  CAPTURE(text);
  const PassRun run = run_pass(step, parse_model(text));
  CHECK_FALSE(run.outcome.changed);
  if (reason.empty())
    CHECK(run.reason(rule).empty());
  else
    CHECK_MESSAGE(run.reason(rule).find(reason) != std::string::npos, run.reason(rule));
}

}  // namespace onnxpress
