#include "graph/ops/attributes.h"

#include <array>
#include <variant>

namespace onnxpress {
namespace {

// By index in AttributeValue.
constexpr std::array<std::string_view, 15> kind_names = {
    "nothing", "a float",         "an integer",     "a string", "a tensor",
    "a graph", "floats",          "integers",       "strings",  "tensors",
    "graphs",  "a sparse tensor", "sparse tensors", "a type",   "types"};

template <class T>
const T* find(const Node& node, std::string_view name) {
  const Attribute* attribute = node.attribute(name);
  if (attribute == nullptr) return nullptr;
  if (!attribute->ref.empty())
    fail("attribute '{}' of {}: refers to '{}' of a function, which is not bound", name,
         node.describe(), attribute->ref);
  const T* value = std::get_if<T>(&attribute->value);
  if (value == nullptr)
    fail("attribute '{}' of {}: expected {}, found {}", name, node.describe(),
         kind_names[AttributeValue(std::in_place_type<T>).index()],
         kind_names[attribute->value.index()]);
  return value;
}

template <class T>
const T& must(const T* value, const Node& node, std::string_view name) {
  if (value == nullptr) fail("{}: attribute '{}' is required", node.describe(), name);
  return *value;
}

}  // namespace

std::int64_t get_int(const Node& node, std::string_view name, std::int64_t otherwise) {
  const auto* value = find<std::int64_t>(node, name);
  return value ? *value : otherwise;
}

bool get_bool(const Node& node, std::string_view name, bool otherwise) {
  return get_int(node, name, otherwise ? 1 : 0) != 0;
}

float get_float(const Node& node, std::string_view name, float otherwise) {
  const auto* value = find<float>(node, name);
  return value ? *value : otherwise;
}

std::string get_string(const Node& node, std::string_view name, std::string_view otherwise) {
  const auto* value = find<std::string>(node, name);
  return value ? *value : std::string(otherwise);
}

std::vector<std::int64_t> get_ints(const Node& node, std::string_view name,
                                   std::vector<std::int64_t> otherwise) {
  const auto* value = find<std::vector<std::int64_t>>(node, name);
  return value ? *value : std::move(otherwise);
}

std::vector<float> get_floats(const Node& node, std::string_view name,
                              std::vector<float> otherwise) {
  const auto* value = find<std::vector<float>>(node, name);
  return value ? *value : std::move(otherwise);
}

std::vector<std::string> get_strings(const Node& node, std::string_view name,
                                     std::vector<std::string> otherwise) {
  const auto* value = find<std::vector<std::string>>(node, name);
  return value ? *value : std::move(otherwise);
}

std::optional<std::int64_t> find_int(const Node& node, std::string_view name) {
  const auto* value = find<std::int64_t>(node, name);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<float> find_float(const Node& node, std::string_view name) {
  const auto* value = find<float>(node, name);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<std::vector<std::int64_t>> find_ints(const Node& node, std::string_view name) {
  const auto* value = find<std::vector<std::int64_t>>(node, name);
  return value ? std::optional(*value) : std::nullopt;
}

const Tensor* find_tensor(const Node& node, std::string_view name) {
  const auto* value = find<NamedTensor>(node, name);
  return value ? &value->tensor : nullptr;
}

const Type* find_type(const Node& node, std::string_view name) { return find<Type>(node, name); }

const Graph* find_graph(const Node& node, std::string_view name) {
  const auto* value = find<std::unique_ptr<Graph>>(node, name);
  return value ? value->get() : nullptr;
}

std::int64_t require_int(const Node& node, std::string_view name) {
  return must(find<std::int64_t>(node, name), node, name);
}

std::vector<std::int64_t> require_ints(const Node& node, std::string_view name) {
  return must(find<std::vector<std::int64_t>>(node, name), node, name);
}

const Graph& require_graph(const Node& node, std::string_view name) {
  return must(find_graph(node, name), node, name);
}

}  // namespace onnxpress
