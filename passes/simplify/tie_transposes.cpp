// Stores a matrix once where the model has its transpose too: an embedding and the output layer
// that is tied to it.
//
// Not a member of simplify: it trades bytes for a Transpose, which runtimes fold when they load the
// model, and which other rules must not be kept from a constant by. Best run last.
#include <algorithm>
#include <map>
#include <tuple>

#include "graph/ops/transpose.h"
#include "graph/rewrite/patch.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "min_bytes",
     .kind = OptionSpec::Kind::integer,
     .default_value = "1024",
     .help = "matrices of fewer bytes stay",
     .min = 256},
};

// Whether row `row` of `a` begins as column `row` of `b` does.
bool begins_alike(const Tensor& a, const Tensor& b, std::int64_t row) {
  const std::size_t width = static_cast<std::size_t>(bits(a.dtype())) / 8;
  const auto at = [width](const Tensor& tensor, std::int64_t i, std::int64_t j) {
    return tensor.bytes().subspan(static_cast<std::size_t>(i * tensor.dim(1) + j) * width, width);
  };
  constexpr std::int64_t looked_at = 8;
  for (std::int64_t j = 0; j < std::min(looked_at, a.dim(1)); ++j)
    if (!std::ranges::equal(at(a, row, j), at(b, j, row))) return false;
  return true;
}

bool is_transpose(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.dim(0) == b.dim(1) && a.dim(1) == b.dim(0) &&
         begins_alike(a, b, 0) && begins_alike(a, b, a.dim(0) / 2) &&
         transposed(a, {1, 0}).equals(b);
}

// Matrices of the graph that are worth it, by their element type and dims, the smaller dim first.
std::vector<std::vector<Value*>> candidates(const Graph& graph, std::int64_t min_bytes) {
  std::map<std::tuple<DType, std::int64_t, std::int64_t>, std::vector<Value*>> groups;
  for (Value* value : graph.initializers()) {
    const Tensor* tensor = value->constant();
    if (!tensor || tensor->rank() != 2 || tensor->dtype() == DType::string ||
        bits(tensor->dtype()) < 8 || static_cast<std::int64_t>(tensor->byte_size()) < min_bytes ||
        tensor->dim(0) == 1 || tensor->dim(1) == 1)
      continue;
    const auto [low, high] = std::minmax({tensor->dim(0), tensor->dim(1)});
    groups[{tensor->dtype(), low, high}].push_back(value);
  }
  std::vector<std::vector<Value*>> lists;
  for (auto& [key, list] : groups)
    if (list.size() > 1) lists.push_back(std::move(list));
  return lists;
}

class TieTransposes : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "tie_transposes",
      .summary = "stores a matrix once where its transpose is there too, behind a Transpose",
      .options = option_specs,
      .effect = Effect::exact};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    std::int64_t tied = 0, bytes = 0;
    model.graph.for_each_graph([&](Graph& graph) {
      for (std::vector<Value*>& list : candidates(graph, context.options.integer("min_bytes"))) {
        for (std::size_t i = 0; i < list.size(); ++i) {
          for (std::size_t j = i + 1; list[i] && j < list.size(); ++j) {
            if (!list[j] || !is_transpose(*list[i]->constant(), *list[j]->constant())) continue;
            // A graph output stays a constant.
            const std::size_t gone = list[j]->is_output() ? i : j;
            if (list[gone]->is_output()) continue;
            bytes += static_cast<std::int64_t>(list[gone]->constant()->byte_size());
            tie(*list[gone], *list[gone == i ? j : i]);
            list[gone] = nullptr;
            ++tied;
          }
        }
      }
    });
    return {.changed = tied > 0, .counts = {{"matrices", tied}, {"bytes", bytes}}};
  }

 private:
  static void tie(Value& value, Value& kept) {
    Patch patch(value.graph());
    patch.replace(&value, patch.node({.op_type = "Transpose",
                                      .domain = "",
                                      .name = value.name(),
                                      .inputs = {&kept},
                                      .attributes = {}}));
    patch.apply();
  }
};

}  // namespace

PASS(tie_transposes) { registry.add(std::make_unique<TieTransposes>()); }

}  // namespace onnxpress
