#include "graph/ops/broadcasting.h"

#include <algorithm>

#include "graph/ops/attributes.h"

namespace onnxpress {
namespace {

constexpr std::int64_t piece = 16384;  // elements a task handles

}  // namespace

std::vector<std::int64_t> row_strides(const Dims& dims) {
  std::vector<std::int64_t> strides(dims.size());
  std::int64_t step = 1;
  for (std::size_t i = dims.size(); i-- > 0;) {
    strides[i] = step;
    step *= dims[i];
  }
  return strides;
}

std::vector<std::int64_t> broadcast_strides(const Dims& dims, const Dims& target) {
  const std::vector<std::int64_t> own = row_strides(dims);
  std::vector<std::int64_t> strides(target.size(), 0);
  const std::size_t offset = target.size() - dims.size();
  for (std::size_t i = 0; i < dims.size(); ++i)
    if (dims[i] != 1) strides[offset + i] = own[i];
  return strides;
}

BroadcastPlan::BroadcastPlan(const Dims& output, std::span<const Dims> operands)
    : strides_(operands.size()) {
  std::vector<std::vector<std::int64_t>> full;
  for (const Dims& operand : operands) full.push_back(broadcast_strides(operand, output));
  for (std::size_t axis = 0; axis < output.size(); ++axis) {
    if (output[axis] == 1) continue;
    bool joins = !dims_.empty();
    for (std::size_t k = 0; k < full.size() && joins; ++k)
      joins = strides_[k].back() == full[k][axis] * output[axis];
    if (joins) {
      dims_.back() *= output[axis];
    } else {
      dims_.push_back(output[axis]);
      for (auto& strides : strides_) strides.push_back(0);
    }
    for (std::size_t k = 0; k < full.size(); ++k) strides_[k].back() = full[k][axis];
  }
  if (dims_.empty()) {
    dims_.push_back(1);
    for (auto& strides : strides_) strides.push_back(0);
  }
}

void BroadcastPlan::run(ThreadPool& pool, const Body& body) const {
  const std::int64_t inner = dims_.back();
  const std::int64_t total = element_count(dims_);
  if (total == 0) return;
  const std::int64_t pieces = (inner + piece - 1) / piece;
  const std::int64_t rows = total / inner;
  const std::int64_t block = std::max<std::int64_t>(1, piece / inner);
  pool.parallel_for(rows * pieces, block, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int64_t> offsets(strides_.size());
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t start = task % pieces * piece;
      for (std::size_t k = 0; k < offsets.size(); ++k) offsets[k] = start * strides_[k].back();
      std::int64_t rest = task / pieces;
      for (std::size_t axis = dims_.size() - 1; axis-- > 0;) {
        const std::int64_t index = rest % dims_[axis];
        rest /= dims_[axis];
        for (std::size_t k = 0; k < offsets.size(); ++k) offsets[k] += index * strides_[k][axis];
      }
      body(task / pieces * inner + start, offsets.data(), std::min(piece, inner - start));
    }
  });
}

Dims legacy_broadcast_dims(const Node& node, std::size_t first_rank, Dims second) {
  if (!node.domain().empty() || node.opset() >= 7 || !get_bool(node, "broadcast", false))
    return second;
  const auto axis = find_int(node, "axis");
  if (!axis) return second;
  const auto start = static_cast<std::size_t>(normalize_axis(*axis, first_rank));
  require(start + second.size() <= first_rank, "axis {} leaves no room for {} axes in rank {}",
          *axis, second.size(), first_rank);
  second.resize(first_rank - start, 1);
  return second;
}

OperandAxes broadcast_axes(const Node& node) {
  const Value* output = node.output(0);
  OperandAxes axes(node.input_count());
  if (output == nullptr || !output->type.shape) return axes;
  const std::size_t rank = output->type.shape->size();
  for (std::size_t i = 0; i < node.input_count(); ++i) {
    const Value* input = node.input(i);
    if (input == nullptr || !input->type.shape) continue;
    const Shape& shape = *input->type.shape;
    if (shape.size() > rank) continue;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      const std::size_t target = rank - shape.size() + axis;
      const bool stretched = !same_dim(shape[axis], (*output->type.shape)[target]);
      axes[i].push_back(stretched ? AxisRole{}
                                  : AxisRole{.kind = AxisRole::Kind::output,
                                             .output_axis = static_cast<std::int64_t>(target)});
    }
  }
  return axes;
}

}  // namespace onnxpress
