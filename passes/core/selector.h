// Which nodes or tensors a pass touches.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// A list of globs ("conv*", "op:Gemm", "tensor:fc?.weight") separated by ';', each over node name,
// op type or tensor name; a leading '!' excludes. A bare glob matches any of the three.
class Selector {
 public:
  explicit Selector(std::string_view text);  // empty: everything
  bool matches(const Node& node) const;                       // name or op type
  bool matches(const Node& node, const Value& tensor) const;  // also the tensor's name
  // Throws Error for every glob that matched nothing in the model, naming the nearest name.
  void require_all_match(const Model& model) const;
  bool selects_everything() const { return terms_.empty(); }

 private:
  struct Term {
    enum class Over { any, name, op, tensor } over;
    bool exclude;
    std::string glob;
  };
  bool matches(const Term& term, const Node& node, const Value* tensor) const;
  std::vector<Term> terms_;
};

// Shell globs: '*', '?', '[a-z]', '[!x]'; '\' escapes.
bool glob_match(std::string_view glob, std::string_view text);

}  // namespace onnxpress
