#include "passes/quantize/dynamic_sites.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "graph/ops/conv.h"
#include "graph/ops/gather.h"
#include "graph/ops/gemm.h"
#include "graph/ops/recurrent.h"
#include "graph/ops/transpose.h"
#include "passes/quantize/indirect_weights.h"

namespace onnxpress {
namespace {

// The constant behind Identity and, for matrices, Transpose.
struct Traced {
  Value* constant = nullptr;
  bool transposed = false;
  bool moved = false;
};

Traced trace(Value* value) {
  std::vector<const Node*> transposes;
  Value* source = value;
  while (source != nullptr && source->producer() != nullptr) {
    const Node* const producer = source->producer();
    if (producer->is("Transpose")) transposes.push_back(producer);
    else if (!producer->is("Identity")) break;
    source = producer->input(0);
  }
  if (source == nullptr || !source->constant()) return {value};
  if (!transposes.empty() && source->constant()->rank() != 2) return {value};
  bool transposed = false;
  for (const Node* transpose : transposes) transposed ^= transpose_permutation(*transpose, 2).front() == 1;
  return {source, transposed, source != value};
}

bool is_float_weight(const Value* value, std::size_t least_rank) {
  if (value == nullptr || value->constant() == nullptr || value->is_output()) return false;
  const Tensor& tensor = *value->constant();
  const DType type = tensor.dtype();
  const bool narrow = type == DType::float32 || type == DType::float16 || type == DType::bfloat16;
  return narrow && tensor.rank() >= least_rank && tensor.size() > 0;
}

class Finder {
 public:
  Finder(const Model& model, const QuantizeRequest& request, std::vector<NearMiss>& misses)
      : model_(model), request_(request), selector_(request.select), misses_(misses) {}

  std::vector<DynamicWeight> run() {
    // The near misses of these are the weights' own: overridable, sparse, already quantized ...
    const std::vector<Weight> weights =
        collect_weights(model_, WeightKinds::all, selector_, "quantize", &misses_);
    IndirectWeights indirect = indirect_weights(model_, selector_, "quantize", weights);
    misses_.insert(misses_.begin(), indirect.left.begin(), indirect.left.end());
    for (const std::vector<Weight>& known : {weights, indirect.moved})
      for (const Weight& weight : known) readable_.emplace(std::pair(weight.node, weight.operand), weight);
    model_.graph.for_each_graph([&](const Graph& graph) {
      for (Node* node : graph.nodes()) visit(*node);
    });
    for (DynamicWeight& found : found_) settle(found);
    std::erase_if(found_, [](const DynamicWeight& found) { return found.bits == 0; });
    return std::move(found_);
  }

 private:
  void miss(const Node& node, std::string reason) {
    misses_.push_back({"quantize", node.describe(), std::move(reason)});
  }

  void visit(Node& node) {
    if (node.is("MatMul") || node.is("Gemm")) return product(node);
    if (node.is("Conv")) return convolution(node);
    if (node.is("Gather")) return lookup(node);
    if (node.is("LSTM")) return recurrent(node);
    for (std::size_t i = 0; i < node.input_count(); ++i) other(node, i);
  }

  // A weight, read by an operator without an integer form; whether it is one.
  bool other(Node& node, std::size_t operand) {
    const auto known = readable_.find({&node, operand});
    if (known == readable_.end()) return false;
    const Weight& weight = known->second;
    add(DynamicForm::weights, {&node, operand, false, weight.channel_axis, weight.input_axis}, weight.value,
        node.input(operand) != weight.value);
    return true;
  }

  void product(Node& node) {
    const Traced b = trace(node.input(1));
    if (!is_float_weight(b.constant, 2)) {
      const bool has_left = other(node, 0), has_right = other(node, 1);
      const auto is_computed = [](const Value* value) {
        return value != nullptr && !value->is_constant() &&
               !(value->producer() && value->producer()->is("DequantizeLinear"));
      };
      if (!has_left && !has_right && selector_.matches(node) && is_computed(node.input(0)) && is_computed(b.constant))
        miss(node, "both operands are made when the model runs: their product stays in float");
      return;
    }
    if (!selector_.matches(node, *b.constant)) return;
    if (node.input(0) != nullptr && node.input(0)->is_constant()) return void(other(node, 1));
    const bool is_gemm = node.is("Gemm");
    const bool transposed = b.transposed != (is_gemm && GemmAttrs::from(node).transpose_b);
    const std::size_t rank = b.constant->constant()->rank();
    if (is_gemm && rank != 2) return void(other(node, 1));
    const auto last = static_cast<std::int64_t>(rank) - 1;
    add(DynamicForm::product, {&node, 1, transposed, last - transposed, last - !transposed}, b.constant, b.moved);
  }

  void convolution(Node& node) {
    const Traced w = trace(node.input(1));
    if (!is_float_weight(w.constant, 3) || w.transposed) return void(other(node, 1));
    if (!selector_.matches(node, *w.constant)) return;
    if (const std::int64_t groups = ConvAttrs::of(node, w.constant->constant()->dims()).group; groups != 1) {
      miss(node, fmt::format("a ConvInteger of {} groups is slower than the float Conv: weights only", groups));
      return add(DynamicForm::weights, {&node, 1, false, 0, 1}, w.constant, w.moved);
    }
    add(DynamicForm::convolution, {&node, 1, false, 0, 1}, w.constant, w.moved);
  }

  void lookup(Node& node) {
    const Traced table = trace(node.input(0));
    if (!is_float_weight(table.constant, 1) || table.transposed) return void(other(node, 0));
    if (!selector_.matches(node, *table.constant)) return;
    const auto rank = table.constant->constant()->rank();
    const std::int64_t axis = normalize_axis(gather_axis(node), rank);
    add(DynamicForm::lookup, {&node, 0, false, axis, static_cast<std::int64_t>(rank) - 1}, table.constant, table.moved);
  }

  void recurrent(Node& node) {
    namespace in = recurrent_input;
    Value* const w = node.input(in::w);
    Value* const r = node.input(in::r);
    const auto is_whole = [&](Value* value) {
      return is_float_weight(value, 3) && value->constant()->dtype() == DType::float32 &&
             selector_.matches(node, *value) && request_.bits_of(node, *value) != 0;
    };
    const RecurrentAttrs attrs = RecurrentAttrs::from(node);
    const bool is_runtime =
        request_.target.id == Target::Id::ort_cpu || request_.target.id == Target::Id::ort_cpu_avx2;
    if (!is_runtime || !is_whole(w) || !is_whole(r) || w == r || attrs.batch_first) {
      other(node, in::w);
      other(node, in::r);
      return;
    }
    add(DynamicForm::recurrent, {&node, in::w, true, 1, 2}, w, false);
    add(DynamicForm::recurrent, {&node, in::r, true, 1, 2}, r, false);
  }

  void add(DynamicForm form, const DynamicSite& site, Value* value, bool moved) {
    const auto [at, is_new] = index_.emplace(value, found_.size());
    if (is_new) {
      DynamicWeight& made = found_.emplace_back();
      made.form = form;
      made.moved = moved;
      made.weight = {value, site.node, site.operand, site.channel_axis, site.input_axis};
      made.bits = request_.bits_of(*site.node, *value);
      if (made.bits == 0) miss(*site.node, fmt::format("'{}' is left in float, as asked", value->name()));
    }
    DynamicWeight& weight = found_[at->second];
    if (form != DynamicForm::weights) weight.sites.push_back(site);
    if (form == DynamicForm::weights || weight.form == form) return;
    // A table that is also multiplied with (tied embeddings) has one form of codes; other mixtures
    // stay in float.
    const auto is_plain = [](DynamicForm f) { return f == DynamicForm::product || f == DynamicForm::lookup; };
    if (is_plain(form) && is_plain(weight.form)) return;
    if (weight.form == DynamicForm::weights) {
      weight.form = form;
      return;
    }
    weight.sites.pop_back();
    miss(*site.node, fmt::format("'{}' is also a weight of {}, whose integer form is another", value->name(),
                                 weight.weight.node->describe()));
  }

  // Readers that disagree on the channels share one scale.
  static void settle(DynamicWeight& found) {
    for (const DynamicSite& site : found.sites)
      if (site.channel_axis != found.weight.channel_axis) {
        found.weight.channel_axis = std::nullopt;
        break;
      }
  }

  const Model& model_;
  const QuantizeRequest& request_;
  const Selector selector_;
  std::vector<NearMiss>& misses_;
  std::map<std::pair<const Node*, std::size_t>, Weight> readable_;  // by reader; looked up only
  std::unordered_map<const Value*, std::size_t> index_;
  std::vector<DynamicWeight> found_;
};

}  // namespace

std::string_view operator_name(DynamicForm form) {
  switch (form) {
    case DynamicForm::product: return "MatMulInteger";
    case DynamicForm::convolution: return "ConvInteger";
    case DynamicForm::lookup: return "Gather";
    case DynamicForm::recurrent: return "DynamicQuantizeLSTM";
    case DynamicForm::weights: break;
  }
  return "DequantizeLinear";
}

const std::string& known_name(const Node& node) {
  if (!node.name.empty()) return node.name;
  for (const Value* output : node.outputs())
    if (output != nullptr) return output->name();
  return node.op_type();
}

std::vector<DynamicWeight> find_dynamic_weights(const Model& model, const QuantizeRequest& request,
                                                std::vector<NearMiss>& misses) {
  return Finder(model, request, misses).run();
}

}  // namespace onnxpress
