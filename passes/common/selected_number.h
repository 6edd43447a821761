// An option that is a number for everything, and other numbers for what selectors pick.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "passes/core/selector.h"

namespace onnxpress {

// "1e-4", "1e-4;tensor:*bias=0" or "op:Conv=0.1": numbers and SELECTOR=NUMBER separated by ';'. The last
// one that fits decides; where none does, the value is `otherwise`.
class SelectedNumber {
 public:
  struct Rule {
    Selector selector;
    std::string text;  // of the selector
    double number = 0;
  };

  // Throws Error naming the option for text that is none, and numbers outside [min, max].
  static SelectedNumber parse(std::string_view option, std::string_view text, double otherwise, double min,
                              double max);

  double general() const { return general_; }
  bool is_given() const { return is_given_; }  // a number for everything was said
  const std::vector<Rule>& rules() const { return rules_; }
  // Of an initializer, by its name and the nodes that read it.
  double of(const Value& tensor) const;
  // Throws Error for selectors that match nothing.
  void require_all_match(const Model& model) const;

 private:
  double general_ = 0;
  bool is_given_ = false;
  std::vector<Rule> rules_;
};

// Whether a selector picks an initializer: by its name, or as the operand of a node.
bool selects(const Selector& selector, const Value& tensor);

}  // namespace onnxpress
