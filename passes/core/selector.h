// Which nodes or tensors a pass touches.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// A list of globs ("conv*", "name:conv*", "op:Gemm", "tensor:fc?.weight") separated by ';', each over
// node name, op type (also with its domain, "com.microsoft.*") or tensor name; a leading '!'
// excludes. A bare glob matches any of the three. Selected is what some glob includes (everything
// when all exclude) and none excludes. A node without a name goes by its first output.
class Selector {
 public:
  explicit Selector(std::string_view text);  // empty: everything; throws Error for an empty glob
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
  bool selects(const Node& node, const Value* tensor) const;
  bool matches(const Term& term, const Node& node, const Value* tensor) const;
  std::vector<Term> terms_;
};

// Shell globs over the whole text: '*', '?', '[a-z]', '[!x]'; '\' escapes.
bool glob_match(std::string_view glob, std::string_view text);

}  // namespace onnxpress
