#include "passes/fuse/row_norm.h"

#include <algorithm>
#include <numeric>

#include "graph/ops/layer_norm.h"
#include "graph/ops/reduce.h"

namespace onnxpress {
namespace {

class RowNormFinder {
 public:
  RowNormFinder(const Tracer& tracer, Node* root) : tracer_(tracer), root_(root) {}

  std::optional<RowNorm> run(bool centered, std::string& reason) {
    if (!root_->is("Mul")) return attempt(0, centered, reason);
    for (const std::size_t top : {std::size_t{0}, std::size_t{1}})
      if (auto found = attempt(top, centered, reason)) return found;
    return std::nullopt;
  }

 private:
  std::optional<RowNorm> attempt(std::size_t top, bool centered, std::string& reason) {
    nodes_.clear();
    means_.clear();
    Value* const above = root_->input(top);
    const Value* const variance = radicand(1 - top);
    if (above == nullptr || variance == nullptr) return std::nullopt;
    Node* const sum = take(variance, {"Add"});
    if (sum == nullptr) return std::nullopt;
    for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
      Node* const mean = tracer_.maker(sum->input(position), {"ReduceMean"});
      const auto epsilon = mean != nullptr
                               ? tracer_.factor(sum->input(1 - position), sum->input(position))
                               : std::nullopt;
      if (!epsilon || *epsilon < 0) continue;
      nodes_.push_back(mean);
      RowNorm norm{.centered = centered, .epsilon = *epsilon};
      if (!follow(*mean, above, norm, reason)) return std::nullopt;
      return norm;
    }
    return std::nullopt;
  }

  Node* take(const Value* value, OpTypes ops) {
    Node* const node = tracer_.maker(value, ops);
    if (node != nullptr) nodes_.push_back(node);
    return node;
  }

  // v when input `position` of the root divides by its square root (or multiplies with the
  // reciprocal of that).
  const Value* radicand(std::size_t position) {
    const Value* value = root_->input(position);
    if (root_->is("Div")) return under_root(value, 0.5);
    if (const Value* found = under_root(value, -0.5)) return found;
    if (Node* const inverse = take(value, {"Reciprocal"}))
      return under_root(inverse->input(0), 0.5);
    Node* const inverse = tracer_.maker(value, {"Div"});
    if (inverse == nullptr || !tracer_.is_factor(inverse->input(0), inverse->input(1), 1))
      return nullptr;
    nodes_.push_back(inverse);
    return under_root(inverse->input(1), 0.5);
  }

  const Value* under_root(const Value* value, double power) {
    if (power > 0)
      if (const Node* const root = take(value, {"Sqrt"})) return root->input(0);
    return base(value, power);
  }

  // The base of a power written with Pow.
  Value* base(const Value* value, double power) {
    Node* const node = tracer_.maker(value, {"Pow"});
    const Tensor* const exponent = node != nullptr ? tracer_.known(node->input(1)) : nullptr;
    if (exponent == nullptr || tracer_.number(node->input(1)) != power) return nullptr;
    if (exponent->rank() > tracer_.rank(node->input(0)).value_or(0)) return nullptr;
    nodes_.push_back(node);
    return node->input(0);
  }

  // From the mean of squares upwards.
  bool follow(const Node& variance, Value* above, RowNorm& norm, std::string& reason) {
    Value* away = base(variance.input(0), 2);
    if (away == nullptr) {
      Node* const product = take(variance.input(0), {"Mul"});
      if (product != nullptr && product->input(0) == product->input(1)) away = product->input(0);
    }
    if (away == nullptr) return false;
    norm.x = centre(above);
    if (norm.centered != (norm.x != nullptr)) return false;
    if (!norm.centered) {
      norm.x = above;
      if (away != above) return false;
    } else if (away != above && centre(away) != norm.x) {
      return false;
    }
    const auto axes = axes_of(variance, reason);
    if (!axes) return false;
    for (const Node* mean : means_) {
      std::string ignored;
      if (axes_of(*mean, ignored) == axes) continue;
      reason = "mean and variance are not over the same axes";
      return false;
    }
    norm.axes = *axes;
    for (Node* node : nodes_)
      if (std::ranges::find(norm.region.nodes, node) == norm.region.nodes.end())
        norm.region.nodes.push_back(node);
    norm.region.nodes.push_back(root_);
    norm.region.last = root_;
    if (const auto obstacle = tracer_.obstacle(norm.region)) {
      reason = *obstacle;
      return false;
    }
    return true;
  }

  // x when the value is x - mean(x).
  Value* centre(const Value* value) {
    Node* const difference = tracer_.maker(value, {"Sub"});
    Node* const mean =
        difference != nullptr ? tracer_.maker(difference->input(1), {"ReduceMean"}) : nullptr;
    if (mean == nullptr || mean->input(0) != difference->input(0)) return nullptr;
    nodes_.insert(nodes_.end(), {difference, mean});
    means_.push_back(mean);
    return difference->input(0);
  }

  // Reduced axes counted from the end.
  std::optional<std::vector<std::int64_t>> axes_of(const Node& mean, std::string& reason) const {
    const ReduceAttrs attrs = ReduceAttrs::from(mean);
    const auto rank = tracer_.rank(mean.input(0));
    if (!attrs.axes) reason = fmt::format("the axes of {} are not constant", mean.describe());
    if (!attrs.keepdims) reason = fmt::format("{} drops the axes (keepdims=0)", mean.describe());
    if (!attrs.axes || !attrs.keepdims) return std::nullopt;
    std::vector<std::int64_t> axes = *attrs.axes;
    if (rank) {
      axes = ReduceAttrs::effective(axes, attrs.noop_with_empty_axes, *rank);
      for (std::int64_t& axis : axes) axis -= static_cast<std::int64_t>(*rank);
    } else {
      std::ranges::sort(axes);
    }
    if (axes.empty() || axes.back() >= 0) {
      reason = fmt::format("the rank of '{}' is not known", mean.input(0)->name());
      return std::nullopt;
    }
    return axes;
  }

  const Tracer& tracer_;
  Node* root_;
  std::vector<Node*> nodes_;
  std::vector<const Node*> means_;
};

// The last `count` dims, where all are known.
std::optional<Dims> row_dims(const Tracer& tracer, const Value* x, std::size_t count) {
  const Shape* const shape = tracer.shape(x);
  if (shape == nullptr || shape->size() < count) return std::nullopt;
  return concrete(Shape(shape->end() - static_cast<std::ptrdiff_t>(count), shape->end()));
}

// A row of equal values: whole where it is small, else one value, which broadcasts.
Tensor equal_row(const std::optional<Dims>& dims, double value, DType type) {
  constexpr std::int64_t largest_row = 16;
  const bool whole = dims && element_count(*dims) <= largest_row;
  const Dims shape = whole ? *dims : Dims{1};
  const std::vector<double> values(static_cast<std::size_t>(element_count(shape)), value);
  return Tensor::of<double>(shape, values).cast(type);
}

}  // namespace

bool RowNorm::over_last_axes() const {
  for (std::size_t i = 0; i < axes.size(); ++i)
    if (axes[i] != static_cast<std::int64_t>(i) - static_cast<std::int64_t>(axes.size()))
      return false;
  return true;
}

std::optional<RowNorm> find_row_norm(const Tracer& tracer, Node* root, bool centered,
                                     std::string& reason) {
  return RowNormFinder(tracer, root).run(centered, reason);
}

Value* take_parameter(const Tracer& tracer, RowNorm& norm, std::string_view op,
                      const std::function<bool(const Value*)>& fits) {
  const auto reader = tracer.only_reader(norm.region.last, {op});
  Value* const other = reader ? reader->node->input(1 - reader->index) : nullptr;
  if (other == nullptr || !fits(other)) return nullptr;
  norm.region.nodes.push_back(reader->node);
  norm.region.last = reader->node;
  return other;
}

void take_casts(const Tracer& tracer, RowNorm& norm) {
  const Node* const widened = tracer.maker(norm.x, {"Cast"});
  if (widened == nullptr) return;
  const DType narrow = tracer.dtype(widened->input(0));
  if (narrow != DType::float16 && narrow != DType::bfloat16) return;
  const auto narrowed = tracer.only_reader(norm.region.last, {"Cast"});
  if (!narrowed || tracer.dtype(narrowed->node->output()) != narrow) return;
  norm.x = widened->input(0);
  norm.region.nodes.push_back(narrowed->node);
  norm.region.last = narrowed->node;
}

bool fits_rows(const Tracer& tracer, const Value* parameter, const Value* x, std::size_t count) {
  if (tracer.factor(parameter, x)) return true;
  const auto dims = row_dims(tracer, x, count);
  if (!dims) return false;
  if (const Tensor* const constant = tracer.known(parameter))
    return constant->rank() <= tracer.rank(x).value_or(0) &&
           without_leading_ones(constant->dims(), count) == *dims;
  const Shape* const shape = tracer.shape(parameter);
  return shape != nullptr && concrete(*shape) == dims;
}

Patch::Ref row_parameter(const Tracer& tracer, Patch& patch, Value* parameter, const RowNorm& norm,
                         double otherwise) {
  const std::size_t count = norm.axes.size();
  const auto dims = row_dims(tracer, norm.x, count);
  const DType type = tracer.dtype(norm.x);
  if (parameter == nullptr)
    return patch.constant(norm.region.last->output()->name() + "_scale",
                          equal_row(dims, otherwise, type));
  const Tensor* const constant = tracer.known(parameter);
  if (constant == nullptr || constant->dims() == dims) return parameter;
  if (constant->size() == 1 && (!dims || element_count(*dims) != 1))
    return patch.constant(parameter->name(),
                          equal_row(dims, *tracer.number(parameter), constant->dtype()));
  // Leading axes of 1 broadcast; they stay where a copy would add to the file.
  if (parameter->uses().size() > 1) return parameter;
  return patch.constant(parameter->name(), constant->reshaped(*dims));
}

}  // namespace onnxpress
