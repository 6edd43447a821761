// What the rewrites of graph/ops/upgrade* share.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ops/upgrade_rules.h"

namespace onnxpress::upgrading {

using Result = std::optional<std::string>;
using Ints = std::vector<std::int64_t>;

inline constexpr const char* attribute_by_reference =
    "an attribute refers to one of the function's and cannot become an input";

// Removes an attribute and returns its value, or nothing when it is absent.
template <class T>
std::optional<T> take(const UpgradeContext& c, std::string_view name) {
  const Attribute* attribute = c.node.attribute(name);
  if (!attribute) return std::nullopt;
  const T* value = std::get_if<T>(&attribute->value);
  require(value != nullptr, "attribute '{}' is not of its declared kind", name);
  std::optional<T> taken = *value;
  c.graph.remove_attribute(&c.node, name);
  return taken;
}

// The attribute refers to one of the function's.
bool refers(const UpgradeContext& c, std::string_view name);
// "" when the attribute is absent.
std::string text_attribute(const UpgradeContext& c, std::string_view name);

// A constant beside the node: an initializer, or a Constant node inside function bodies, which
// have no initializers.
Value* constant(const UpgradeContext& c, std::string_view hint, Tensor tensor);
Value* ints_constant(const UpgradeContext& c, std::string_view what, const Ints& values);
// A name made of the node's result and what it is for.
std::string hint(const UpgradeContext& c, std::string_view what);

// A new node in front of the one rewritten; its first output.
Value* add_before(const UpgradeContext& c, std::string op_type, std::string_view what,
                  std::vector<Value*> inputs, Attributes attributes = {});
// Every reader of the node's output `index` reads `replacement`, of the same type.
void take_over(const UpgradeContext& c, std::size_t index, Value* replacement);

// Rewrites of operators on images, and of normalizations.
Result upsample_7(const UpgradeContext& c);
Result upsample_9(const UpgradeContext& c);
Result upsample_10(const UpgradeContext& c);
Result upsample_11(const UpgradeContext& c);
Result resize_11(const UpgradeContext& c);
Result resize_13(const UpgradeContext& c);
Result grid_sample_20(const UpgradeContext& c);
Result roi_align_16(const UpgradeContext& c);
Result group_norm_21(const UpgradeContext& c);
// Of Scan.
Result scan_9(const UpgradeContext& c);

}  // namespace onnxpress::upgrading
