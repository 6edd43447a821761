// Transpose, SpaceToDepth, DepthToSpace.
#include "graph/ops/transpose.h"

#include <algorithm>
#include <numeric>

#include "graph/ops/attributes.h"
#include "graph/ops/broadcasting.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

StridedView permuted(const Dims& dims, const std::vector<std::int64_t>& permutation) {
  const auto strides = row_strides(dims);
  StridedView view;
  for (const std::int64_t axis : permutation) {
    view.dims.push_back(dims[static_cast<std::size_t>(axis)]);
    view.strides.push_back(strides[static_cast<std::size_t>(axis)]);
  }
  return view;
}

Kernel prepare_transpose(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const StridedView view = permuted(x.dims(), transpose_permutation(node, x.rank()));
      put_view(inner, 0, x, view, view.dims);
    });
  };
}

void infer_transpose(InferContext& context) {
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (x != nullptr) {
    shape.emplace();
    for (const std::int64_t axis : transpose_permutation(context.node(), x->size()))
      shape->push_back((*x)[static_cast<std::size_t>(axis)]);
  }
  const bool flat = shape && shape->size() <= 1;
  context.set_output(0, context.input_dtype(0), std::move(shape));
  if (auto contents = context.input_symbolic(0); contents && flat)
    context.set_output_symbolic(0, std::move(*contents));
}

OperandAxes transpose_axes(const Node& node) {
  OperandAxes axes(node.input_count());
  const Value* x = node.input(0);
  if (x == nullptr || !x->type.shape) return axes;
  const auto permutation = transpose_permutation(node, x->type.shape->size());
  axes[0].resize(permutation.size());
  for (std::size_t i = 0; i < permutation.size(); ++i)
    axes[0][static_cast<std::size_t>(permutation[i])] = {
        .kind = AxisRole::Kind::output, .output_axis = static_cast<std::int64_t>(i)};
  return axes;
}

// Both rearrangements are: split axes, permute, merge axes.
struct Rearrangement {
  Dims split;
  std::vector<std::int64_t> permutation;
  Dims result;
};

std::int64_t block_size(const Node& node) {
  const std::int64_t block = require_int(node, "blocksize");
  require(block >= 1, "attribute 'blocksize': expected at least 1, found {}", block);
  return block;
}

Rearrangement depth_to_space(const Node& node, const Dims& d) {
  const std::int64_t b = block_size(node);
  require(d.size() == 4 && d[1] % (b * b) == 0,
          "expected 4 axes and channels divisible by {}, found {}", b * b, to_string(d));
  const Dims result{d[0], d[1] / (b * b), d[2] * b, d[3] * b};
  const std::string mode = get_string(node, "mode", "DCR");
  require(mode == "DCR" || mode == "CRD", "attribute 'mode': expected DCR or CRD, found '{}'",
          mode);
  if (mode == "DCR") return {{d[0], b, b, d[1] / (b * b), d[2], d[3]}, {0, 3, 4, 1, 5, 2}, result};
  return {{d[0], d[1] / (b * b), b, b, d[2], d[3]}, {0, 1, 4, 2, 5, 3}, result};
}

Rearrangement space_to_depth(const Node& node, const Dims& d) {
  const std::int64_t b = block_size(node);
  require(d.size() == 4 && d[2] % b == 0 && d[3] % b == 0,
          "expected 4 axes and spatial sizes divisible by {}, found {}", b, to_string(d));
  return {{d[0], d[1], d[2] / b, b, d[3] / b, b},
          {0, 3, 5, 1, 2, 4},
          {d[0], d[1] * b * b, d[2] / b, d[3] / b}};
}

template <Rearrangement (*plan)(const Node&, const Dims&)>
Kernel prepare_rearrangement(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    move(context, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Rearrangement work = plan(node, x.dims());
      put_view(inner, 0, x, permuted(work.split, work.permutation), work.result);
    });
  };
}

template <Rearrangement (*plan)(const Node&, const Dims&)>
void infer_rearrangement(InferContext& context) {
  Shape shape(4);
  if (const Shape* x = context.input_shape(0)) {
    // What is not known is worked out with a stand-in that every divisor fits, then forgotten.
    const std::int64_t b = block_size(context.node());
    Dims dims;
    for (const Dim& dim : *x) dims.push_back(dim.is_known() ? dim.value() : b * b);
    shape = to_shape(plan(context.node(), dims).result);
    for (std::size_t i = 0; i < 4; ++i)
      if (!(*x)[i].is_known()) shape[i] = i == 0 ? (*x)[0] : Dim();
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

}  // namespace

std::vector<std::int64_t> transpose_permutation(const Node& node, std::size_t rank) {
  std::vector<std::int64_t> permutation = get_ints(node, "perm");
  if (permutation.empty()) {
    permutation.resize(rank);
    std::iota(permutation.rbegin(), permutation.rend(), std::int64_t{0});
    return permutation;
  }
  require(permutation.size() == rank, "attribute 'perm': expected {} axes, found {}", rank,
          to_string(permutation));
  for (std::int64_t& axis : permutation) axis = normalize_axis(axis, rank);
  normalize_axes(permutation, rank);
  return permutation;
}

OpCall make_transpose(std::vector<std::int64_t> permutation) {
  OpCall call{.op_type = "Transpose"};
  call.attributes["perm"] = std::move(permutation);
  return call;
}

Tensor transposed(const Tensor& tensor, const std::vector<std::int64_t>& permutation) {
  const DType type = movable_type(tensor.dtype());
  const Tensor wide = tensor.cast(type);
  const StridedView view = permuted(wide.dims(), permutation);
  Tensor result = Tensor::uninitialized(type, view.dims);
  const auto width = static_cast<std::int64_t>(bits(type)) / 8;
  require(width > 0, "element type {} is not supported here", name(type));
  const std::byte* from = wide.bytes().data();
  std::byte* to = result.mutable_bytes().data();
  for (std::int64_t i = 0; i < result.size(); ++i) {
    std::int64_t rest = i;
    std::int64_t at = 0;
    for (std::size_t axis = view.dims.size(); axis-- > 0; rest /= view.dims[axis])
      at += rest % view.dims[axis] * view.strides[axis];
    std::copy(from + at * width, from + (at + 1) * width, to + i * width);
  }
  return result.cast(tensor.dtype());
}

void transpose_into(ThreadPool& pool, const Tensor& tensor,
                    const std::vector<std::int64_t>& permutation, Tensor& result) {
  write_view(pool, tensor, permuted(tensor.dims(), permutation), result);
}

OPERATORS(transpose) {
  registry.add(OpDef{.name = "Transpose",
                     .infer = infer_transpose,
                     .prepare = prepare_transpose,
                     .axes = transpose_axes});
  registry.add(OpDef{.name = "DepthToSpace",
                     .infer = infer_rearrangement<depth_to_space>,
                     .prepare = prepare_rearrangement<depth_to_space>});
  registry.add(OpDef{.name = "SpaceToDepth",
                     .infer = infer_rearrangement<space_to_depth>,
                     .prepare = prepare_rearrangement<space_to_depth>});
}

}  // namespace onnxpress
