// Short forms for tests of one pass of rules.
#pragma once

#include <string>

#include "tests/passes/pass_fixture.h"

namespace onnxpress {

// `rule` of `pass` is applied, `nodes` nodes remain, outputs are equal (the fixture), and a second
// run changes nothing.
inline PassRun check_rule(const std::string& pass, const std::string& rule, const std::string& text,
                          std::size_t nodes) {
  CAPTURE(text);
  PassRun run = run_pass(pass, text);
  CHECK(run.outcome.counts[rule] >= 1);
  const std::string after = to_text(*run.after);
  CAPTURE(after);
  CHECK(run.after->graph.node_count() == nodes);
  CHECK_FALSE(run_pass(pass, run.after->clone()).outcome.changed);
  return run;
}

// `rule` of `pass` leaves the model alone and says why.
inline void check_miss(const std::string& pass, const std::string& rule, const std::string& text,
                       const std::string& reason) {
  CAPTURE(text);
  const PassRun run = run_pass(pass, text);
  CHECK_FALSE(run.outcome.changed);
  std::string reasons;
  for (const NearMiss& miss : run.near_misses)
    if (miss.rule == rule) reasons += miss.reason + "\n";
  CHECK_MESSAGE(reasons.find(reason) != std::string::npos, "found: " << reasons);
}

}  // namespace onnxpress
