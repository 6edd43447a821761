// Pipelines as text and as YAML recipes.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "passes/core/pass.h"

namespace onnxpress {

struct PipelineStep {
  const Pass* pass = nullptr;
  Options options;
};

// Whether the step needs training data.
bool trains(const PipelineStep& step);

// "simplify,fuse,prune_magnitude{sparsity=0.6}": names and braces, blanks and newlines anywhere
// between them; empty text is a pipeline without steps. A value is quoted with '...' when it is empty
// or holds ',', '{', '}', '=', a quote (doubled inside quotes) or blanks at an end.
// parse(p.to_text()).to_text() == p.to_text().
class Pipeline {
 public:
  static Pipeline parse(std::string_view text);   // throws Error with the column and nearest name
  std::string to_text() const;
  static std::string to_text(const PipelineStep& step);
  bool needs(Needs what) const;
  Effect effect() const;  // the weakest promise of its steps
  std::vector<PipelineStep> steps;
};

// `value` as it must stand in pipeline text.
std::string quote_option_value(const std::string& value);

// A YAML recipe: `passes:` is a list of names or {name: {option: value}} maps; every other key is
// a long option of `compress` without its dashes (eval, calib, max-drop, input-scale, ...).
struct Recipe {
  Pipeline pipeline;
  std::map<std::string, std::string> settings;
};
// Throws Error with the line. A sequence of scalars is joined with ','.
Recipe parse_recipe(const std::string& yaml);
// The YAML form of a pipeline; parse_recipe(to_yaml(p)).pipeline.to_text() == p.to_text().
std::string to_yaml(const Pipeline& pipeline);
// Named pipelines ("lossless"); throws Error with the nearest name.
Pipeline preset(std::string_view name);
std::vector<std::pair<std::string, std::string>> presets();  // name, pipeline text

}  // namespace onnxpress
