#include "passes/convert/float_plan.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "graph/ops/constant.h"
#include "graph/ops/permuted_form.h"
#include "passes/common/min_cut.h"

namespace onnxpress {
namespace {

// A constant of fewer elements is no reason to convert a node.
constexpr std::int64_t large_constant = 256;
// What a constant must keep of its energy: a few bits less than either type gives what is in its
// range.
constexpr double least_constant_snr_db = 40;

double snr_db(const Tensor& exact, const Tensor& rounded) {
  const std::vector<float> a = exact.to_floats();
  const std::vector<float> b = rounded.to_floats();
  double signal = 0, noise = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) continue;
    signal += double{a[i]} * double{a[i]};
    noise += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
  }
  return noise == 0 ? 1e9 : 10 * std::log10(signal / noise);
}

class Planner {
 public:
  Planner(const Graph& graph, const TypeInference& types, const FloatRequest& request)
      : graph_(graph), types_(types), request_(request) {}

  FloatPlan plan() {
    for (Node* node : graph_.nodes()) consider(*node);
    choose();
    return std::move(plan_);
  }

 private:
  void consider(Node& node) {
    const bool computes_shape = is_shape_computation(node);
    if (computes_shape) shapes_.insert(&node);
    std::string reason;
    std::optional<NarrowFloatForm> form = narrow_float_form(node, request_.type, types_, &reason);
    // Shape and Size themselves read any type.
    if (form && computes_shape && !form->outputs.empty())
      reason = "it computes shapes";
    else if (form && request_.keep && request_.keep->matches(node))
      reason = "selected by keep";
    else if (form && feeds_matrix_product_by_batch(node))
      reason = "ONNX Runtime 1.31 crashes when it fuses it with a float16 MatMul";
    else if (form)
      reason = range_obstacle(node, *form);
    if (form || !reason.empty()) plan_.nodes.push_back(&node);
    if (!reason.empty())
      plan_.left.emplace(&node, std::move(reason));
    else if (form)
      plan_.narrow.emplace(&node, std::move(*form));
  }

  // All that the node reads comes from Shape or Size, or from constants.
  bool is_shape_computation(const Node& node) const {
    if (node.is("Shape") || node.is("Size")) return true;
    return node.input_count() > 0 &&
           std::ranges::all_of(node.inputs(),
                               [&](const Value* input) {
                                 if (input == nullptr || constant_contents(input)) return true;
                                 return input->producer() && shapes_.contains(input->producer());
                               }) &&
           std::ranges::any_of(node.inputs(), [&](const Value* input) {
             return input && input->producer() && shapes_.contains(input->producer());
           });
  }

  // A Transpose that makes the first axis one of a MatMul's rows or columns, whose other operand is
  // a matrix.
  bool feeds_matrix_product_by_batch(const Node& node) const {
    const std::optional<Permutation> p = permutation_of(node, types_);
    if (request_.type != DType::float16 || !p || p->size() < 3) return false;
    Permutation rest = *p;
    const auto first = std::ranges::find(rest, 0);
    if (rest.end() - first > 2) return false;
    rest.erase(first);
    if (!std::ranges::is_sorted(rest)) return false;
    return std::ranges::any_of(node.output()->uses(), [&](const Use& use) {
      if (!use.node->is("MatMul") || use.node->input_count() != 2) return false;
      const Type& other = types_.type(use.node->input(1 - use.index));
      return !other.shape || other.shape->size() <= 2;
    });
  }

  std::string range_obstacle(const Node& node, const NarrowFloatForm& form) {
    for (const std::size_t index : form.inputs)
      if (std::string obstacle = value_obstacle(*node.input(index)); !obstacle.empty())
        return obstacle;
    for (const std::size_t index : form.outputs)
      if (std::string obstacle = value_obstacle(*node.output(index)); !obstacle.empty())
        return obstacle;
    return "";
  }

  const std::string& value_obstacle(const Value& value) {
    const auto found = obstacles_.find(&value);
    if (found != obstacles_.end()) return found->second;
    const std::optional<Tensor> constant = constant_contents(&value);
    return obstacles_
        .emplace(&value, constant ? constant_obstacle(value, *constant) : range_obstacle(value))
        .first->second;
  }

  std::string range_obstacle(const Value& value) const {
    const double largest = request_.ranges ? request_.ranges->of(value) : 0.0;
    if (largest <= request_.largest) return "";
    return fmt::format("'{}' reaches {:.4g}, beyond {:.6g}", value.name(), largest,
                       request_.largest);
  }

  std::string constant_obstacle(const Value& value, const Tensor& tensor) const {
    double largest = 0;
    for (const float x : tensor.to_floats())
      if (std::isfinite(x)) largest = std::max(largest, std::fabs(double{x}));
    if (largest > request_.largest)
      return fmt::format("constant '{}' holds {:.4g}, beyond {:.6g}", value.name(), largest,
                         request_.largest);
    const double snr = snr_db(tensor, tensor.cast(request_.type));
    if (snr >= least_constant_snr_db) return "";
    return fmt::format("constant '{}' is too small for {}: its largest number is {:.4g}",
                       value.name(), name(request_.type), largest);
  }

  bool is_wanted(const Node& node, const NarrowFloatForm& form) const {
    return multiplies_matrices(node) || std::ranges::any_of(form.inputs, [&](std::size_t index) {
             const Tensor* constant = node.input(index)->constant();
             return constant && constant->size() >= large_constant;
           });
  }

  // The float32 side of a cut is the source's.
  std::size_t vertex(const Node* node) {
    const NarrowFloatForm* form = plan_.form(node);
    if (form == nullptr) return MinCut::source;
    if (is_wanted(*node, *form)) return MinCut::sink;
    const auto found = vertices_.find(node);
    return found != vertices_.end() ? found->second
                                    : vertices_.emplace(node, cut_.add_vertex()).first->second;
  }

  void connect(const Value& value) {
    const std::size_t producer =
        value.producer() ? vertex(value.producer()) : std::size_t{MinCut::source};
    std::vector<std::size_t> readers;
    if (value.is_output()) readers.push_back(MinCut::source);
    for (const Use& use : value.uses()) {
      const NarrowFloatForm* form = plan_.form(use.node);
      const bool narrow = form && std::ranges::find(form->inputs, use.index) != form->inputs.end();
      readers.push_back(narrow ? vertex(use.node) : std::size_t{MinCut::source});
    }
    // One Cast serves all readers of the other type.
    const std::size_t down = cut_.add_vertex(), up = cut_.add_vertex();
    cut_.add_edge(producer, down, 1);
    cut_.add_edge(up, producer, 1);
    for (const std::size_t reader : readers) {
      cut_.add_edge(down, reader, MinCut::unlimited);
      cut_.add_edge(reader, up, MinCut::unlimited);
    }
  }

  void choose() {
    const auto is_float = [&](const Value* value) {
      return value && types_.type(value).is_tensor() && types_.type(value).elem == DType::float32;
    };
    for (const Value* input : graph_.inputs())
      if (is_float(input) && !input->constant()) connect(*input);
    for (const Node* node : graph_.nodes())
      for (const Value* output : node->outputs())
        if (is_float(output) && !constant_contents(output)) connect(*output);
    const std::vector<bool> stays_float = cut_.source_side();
    for (const auto& [node, index] : vertices_) {
      if (!stays_float[index]) continue;
      plan_.narrow.erase(node);
      plan_.left.emplace(node, "narrow, it would need more Casts");
    }
    // A node that makes nothing narrow and reads nothing narrow only reads Casts.
    if (std::ranges::none_of(plan_.narrow, [&](const auto& entry) {
          return is_wanted(*entry.first, entry.second);
        })) {
      for (const auto& [node, form] : plan_.narrow)
        plan_.left.emplace(node, "nothing near it has weights");
      plan_.narrow.clear();
    }
  }

  const Graph& graph_;
  const TypeInference& types_;
  const FloatRequest& request_;
  FloatPlan plan_;
  std::unordered_set<const Node*> shapes_;
  std::unordered_map<const Value*, std::string> obstacles_;
  MinCut cut_;
  std::unordered_map<const Node*, std::size_t> vertices_;
};

}  // namespace

FloatPlan plan_floats(const Graph& graph, const TypeInference& types, const FloatRequest& request) {
  return Planner(graph, types, request).plan();
}

}  // namespace onnxpress
