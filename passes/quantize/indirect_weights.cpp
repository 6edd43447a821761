#include "passes/quantize/indirect_weights.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <unordered_set>

namespace onnxpress {
namespace {

constexpr std::size_t least_bytes = 1024;  // biases and scales are not worth a line
constexpr int deepest_path = 64;

bool only_moves(const Node& node) {
  static constexpr std::array<std::string_view, 10> names{
      "Slice",     "Concat", "Transpose", "Reshape",  "Squeeze",
      "Unsqueeze", "Split",  "Flatten",   "Identity", "Cast"};
  return node.domain().empty() && std::ranges::find(names, node.op_type()) != names.end();
}

std::vector<std::size_t> weight_operands(const Node& node) {
  if (node.is("Conv") || node.is("ConvTranspose")) return {1};
  if (node.is("LSTM") || node.is("GRU") || node.is("RNN")) return {1, 2};
  if (node.is("MatMul") || node.is("Gemm")) return {0, 1};
  return {};
}

struct Found {
  std::size_t bytes;
  NearMiss miss;
};

class Finder {
 public:
  Finder(const Selector& selector, std::string_view pass) : selector_(selector), pass_(pass) {}

  void visit(const Node& node) {
    for (const std::size_t operand : weight_operands(node))
      if (const Value* value = node.input(operand)) follow(node, *value, {}, 0);
  }

  std::vector<NearMiss> take() {
    std::ranges::stable_sort(found_, std::ranges::greater(), &Found::bytes);
    std::vector<NearMiss> misses;
    for (Found& found : found_) misses.push_back(std::move(found.miss));
    return misses;
  }

 private:
  void follow(const Node& reader, const Value& value, std::vector<std::string> path, int depth) {
    if (depth > deepest_path) return;
    if (const Node* producer = value.producer()) {
      if (!only_moves(*producer)) return;
      if (std::ranges::find(path, producer->op_type()) == path.end())
        path.insert(path.begin(), producer->op_type());
      for (const Value* input : producer->inputs())
        if (input) follow(reader, *input, path, depth + 1);
      return;
    }
    const Tensor* tensor = value.constant();
    if (path.empty() || !tensor || !is_float(tensor->dtype()) || bits(tensor->dtype()) < 16 ||
        tensor->byte_size() < least_bytes || !selector_.matches(reader, value) ||
        !seen_.insert(&value).second)
      return;
    found_.push_back({tensor->byte_size(),
                      {std::string(pass_), reader.describe(),
                       fmt::format("'{}' ({} bytes of {}) reaches it through {}: only a constant "
                                   "that the operator reads itself is quantized",
                                   value.name(), tensor->byte_size(), name(tensor->dtype()),
                                   fmt::join(path, ", "))}});
  }

  const Selector& selector_;
  std::string_view pass_;
  std::unordered_set<const Value*> seen_;
  std::vector<Found> found_;
};

}  // namespace

std::vector<NearMiss> indirect_weights(const Model& model, const Selector& selector,
                                       std::string_view pass) {
  Finder finder(selector, pass);
  model.graph.for_each_graph([&](const Graph& graph) {
    for (const Node* node : graph.nodes()) finder.visit(*node);
  });
  return finder.take();
}

}  // namespace onnxpress
