#include "graph/ops/matmul_nbits.h"

#include <algorithm>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/matrix_product.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

constexpr std::int64_t largest = std::int64_t{1} << 30;  // columns and depth
constexpr std::int64_t columns_at_once = 64;

// Columns are dequantized a few at a time, so that memory does not grow with the weights.
void multiply(KernelContext& context, const MatMulNBitsAttrs& attrs) {
  const Tensor& a = context.required_input(0);
  require(a.rank() >= 1 && a.dims().back() == attrs.depth,
          "expected an input of depth {}, found {}", attrs.depth, to_string(a.dims()));
  const Tensor* bias = context.input(5);
  require(bias == nullptr || bias->dims() == Dims{attrs.columns}, "expected {} biases, found {}",
          attrs.columns, bias == nullptr ? "none" : to_string(bias->dims()));
  const NBitsWeights weights(attrs, context.required_input(1), context.required_input(2),
                             context.input(3), context.input(4));
  const std::vector<float> offsets =
      bias != nullptr ? bias->to_floats()
                      : std::vector<float>(static_cast<std::size_t>(attrs.columns), 0.0f);
  Dims dims = a.dims();
  dims.back() = attrs.columns;
  const std::int64_t rows = element_count(std::span(dims).first(dims.size() - 1));
  const float* const left = a.data<float>().data();
  float* const out = context.output(0, DType::float32, dims).mutable_data<float>().data();
  context.pool().parallel_for(
      attrs.columns, columns_at_once, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> block(static_cast<std::size_t>((end - begin) * attrs.depth));
        weights.dequantize(begin, end, block.data());
        for (std::int64_t row = 0; row < rows; ++row)
          std::copy(offsets.begin() + begin, offsets.begin() + end,
                    out + row * attrs.columns + begin);
        add_product<float>(rows, end - begin, attrs.depth, {left, attrs.depth},
                           {block.data(), attrs.depth, true}, {out + begin, attrs.columns});
      });
}

Kernel prepare(const PrepareContext& prepare) {
  return [attrs = MatMulNBitsAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) { multiply(inner, attrs); });
  };
}

void infer(InferContext& context) {
  const MatMulNBitsAttrs attrs = MatMulNBitsAttrs::from(context.node());
  std::optional<Shape> shape;
  if (const Shape* a = context.input_shape(0)) {
    require(!a->empty(), "expected an input of at least one axis, found a scalar");
    unify(a->back(), Dim(attrs.depth), "the depth of the input and attribute 'K'");
    shape = *a;
    shape->back() = attrs.columns;
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

OperandAxes axes(const Node& node) {
  OperandAxes roles(node.input_count());
  const Value* a = node.input(0);
  if (a == nullptr || !a->type.shape || a->type.shape->empty()) return roles;
  const auto last = static_cast<std::int64_t>(a->type.shape->size()) - 1;
  const AxisRole column{.kind = AxisRole::Kind::output, .output_axis = last};
  for (std::int64_t i = 0; i < last; ++i)
    roles[0].push_back({.kind = AxisRole::Kind::output, .output_axis = i});
  roles[0].push_back({.kind = AxisRole::Kind::reduced});
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{5}}) {
    const Value* value = node.input(i);
    if (value == nullptr || !value->type.shape || value->type.shape->empty()) continue;
    if (!same_dim((*value->type.shape)[0], Dim(MatMulNBitsAttrs::from(node).columns))) continue;
    roles[i].assign(value->type.shape->size(), {});
    roles[i][0] = column;
  }
  return roles;
}

Cost cost(const PrepareContext& context) {
  const MatMulNBitsAttrs attrs = MatMulNBitsAttrs::from(context.node());
  return {.macs = element_count(concrete(*context.input_type(0)->shape).value()) * attrs.columns};
}

void check_dims(const Tensor& tensor, const char* what, const Dims& dims) {
  require(tensor.dims() == dims || tensor.dims() == Dims{element_count(dims)},
          "expected {} {}, found {}", what, to_string(dims), to_string(tensor.dims()));
}

}  // namespace

MatMulNBitsAttrs MatMulNBitsAttrs::from(const Node& node) {
  MatMulNBitsAttrs attrs{.depth = require_int(node, "K"),
                         .columns = require_int(node, "N"),
                         .bits = get_int(node, "bits", 4),
                         .block_size = require_int(node, "block_size"),
                         .accuracy_level = get_int(node, "accuracy_level", 0)};
  for (const std::int64_t size : {attrs.depth, attrs.columns})
    require(size >= 1 && size <= largest, "attributes 'K' and 'N': expected 1 to {}, found {}",
            largest, size);
  unsigned_type(attrs.bits);
  check_block_size(attrs.block_size);
  require(get_int(node, "weight_prepacked", 0) == 0,
          "attribute 'weight_prepacked': expected 0, found weights in the layout of one processor");
  return attrs;
}

Attributes MatMulNBitsAttrs::to_attributes() const {
  Attributes attributes;
  attributes["K"] = depth;
  attributes["N"] = columns;
  attributes["bits"] = bits;
  attributes["block_size"] = block_size;
  if (accuracy_level != 0) attributes["accuracy_level"] = accuracy_level;
  return attributes;
}

NBitsWeights::NBitsWeights(const MatMulNBitsAttrs& attrs, const Tensor& codes, const Tensor& scales,
                           const Tensor* zero_points, const Tensor* group_index)
    : attrs_(attrs), row_codes_(attrs.blocks() * attrs.block_size), scales_(scales.to_floats()) {
  const DType type = unsigned_type(attrs.bits);
  require(codes.dtype() == DType::uint8, "expected weights in uint8, found {}",
          name(codes.dtype()));
  check_dims(codes, "weights", {attrs.columns, attrs.blocks(), attrs.block_size * attrs.bits / 8});
  codes_ = PackedCodes(type, codes.bytes());
  check_dims(scales, "scales", {attrs.columns, attrs.blocks()});
  const std::int64_t zero_bytes = (attrs.blocks() * attrs.bits + 7) / 8;
  row_zeros_ = zero_bytes * 8 / attrs.bits;
  if (zero_points != nullptr && zero_points->dtype() == DType::uint8) {
    check_dims(*zero_points, "zero points", {attrs.columns, zero_bytes});
    packed_zeros_.emplace(type, zero_points->bytes());
  } else if (zero_points != nullptr) {
    require(is_float(zero_points->dtype()),
            "expected zero points in uint8 or a float type, found {}", name(zero_points->dtype()));
    check_dims(*zero_points, "zero points", {attrs.columns, attrs.blocks()});
    zeros_ = zero_points->to_floats();
  }
  if (group_index == nullptr) return;
  require(group_index->dims() == Dims{attrs.depth} || group_index->dims() == Dims{row_codes_},
          "expected a group index of {} elements, found {}", attrs.depth,
          to_string(group_index->dims()));
  groups_ = group_index->to_ints();
  for (const std::int64_t group : groups_)
    require(group >= 0 && group < attrs.blocks(), "expected group indices below {}, found {}",
            attrs.blocks(), group);
}

void NBitsWeights::dequantize(std::int64_t begin, std::int64_t end, float* out) const {
  const float middle = static_cast<float>(std::int64_t{1} << (attrs_.bits - 1));
  const std::int64_t blocks = attrs_.blocks();
  const auto zero = [&](std::int64_t row, std::int64_t block) {
    if (packed_zeros_) return (*packed_zeros_)[row * row_zeros_ + block];
    return zeros_.empty() ? middle : zeros_[static_cast<std::size_t>(row * blocks + block)];
  };
  for (std::int64_t row = begin; row < end; ++row) {
    const float* const scales = scales_.data() + row * blocks;
    const std::int64_t first = row * row_codes_;
    if (!groups_.empty()) {
      for (std::int64_t k = 0; k < attrs_.depth; ++k) {
        const std::int64_t group = groups_[static_cast<std::size_t>(k)];
        *out++ = (codes_[first + k] - zero(row, group)) * scales[group];
      }
      continue;
    }
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t start = block * attrs_.block_size;
      const std::int64_t count = std::min(attrs_.depth - start, attrs_.block_size);
      codes_.read(first + start, count, zero(row, block), scales[block], out);
      out += count;
    }
  }
}

OPERATORS(matmul_nbits) {
  registry.add(OpDef{.name = "MatMulNBits",
                     .domain = "com.microsoft",
                     .infer = infer,
                     .prepare = prepare,
                     .axes = axes,
                     .cost = cost});
}

}  // namespace onnxpress
