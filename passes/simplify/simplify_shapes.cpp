// Makes shape computations shorter with what is known of dims that have no number.
//
// - Reshape, Expand and Slice whose target or ends are computed take a constant where every element
//   is a number, a dim of the data at the same place (Reshape: 0, Expand: 1, Slice: the end), or,
//   for one of a Reshape's, follows from the others (-1).
// - Shape computations that give the same dims, if of different tensors, are done once.
#include <algorithm>
#include <limits>
#include <map>

#include "graph/ops/reshape.h"
#include "graph/rewrite/patch.h"
#include "graph/rewrite/pattern.h"
#include "passes/core/registry.h"
#include "passes/simplify/expression_key.h"
#include "passes/simplify/file_bytes.h"
#include "passes/simplify/shape_contents.h"

namespace onnxpress {
namespace {

Tensor int_vector(DType type, const std::vector<std::int64_t>& values) {
  return Tensor::of<std::int64_t>({std::ssize(values)}, values).cast(type);
}

// A constant in place of a computed input.
struct Retarget {
  Node* node;
  std::size_t input;
  DType type;
  std::vector<std::int64_t> values;
};

// The constant, or why there is none.
struct Answer {
  std::vector<std::int64_t> values;
  std::string obstacle = {};  // empty: none
};

class ShapeSimplifier {
 public:
  ShapeSimplifier(Model& model, std::vector<NearMiss>* near_misses)
      : model_(model), types_(model, {.use_declared = false}), near_misses_(near_misses) {
    types_.run();
  }

  std::int64_t retargeted() const { return retargeted_; }
  std::int64_t merged() const { return merged_; }

  void run() {
    ShapeTracer tracer(model_, types_);
    model_.graph.for_each_graph([&](Graph& graph) {
      for (Node* node : graph.nodes()) visit(*node, tracer);
    });
    merge(model_.graph, tracer);
    apply_retargets();
  }

 private:
  // --- Constants for targets ------------------------------------------------------------------

  void visit(Node& node, ShapeTracer& tracer) {
    if (!node.domain().empty()) return;
    if (node.op_type() == "Reshape") {
      consider(node, 1, tracer, &ShapeSimplifier::reshape_target);
    } else if (node.op_type() == "Expand") {
      consider(node, 1, tracer, &ShapeSimplifier::expand_target);
    } else if (node.op_type() == "Slice") {
      consider(node, 2, tracer, &ShapeSimplifier::slice_ends);
    }
  }

  using Question = Answer (ShapeSimplifier::*)(const Node&, const ShapeContents&, ShapeTracer&);

  void consider(Node& node, std::size_t input, ShapeTracer& tracer, Question question) {
    const Value* computed = node.input(input);
    if (!computed || !node.input(0) || types_.known_value(computed)) return;
    const auto& contents = tracer.contents(computed);
    Answer answer =
        !contents ? Answer{{}, fmt::format("the length of '{}' is not known", computed->name())}
        : tracer.rank(node.input(0))
            ? (this->*question)(node, *contents, tracer)
            : Answer{{}, fmt::format("the rank of '{}' is not known", node.input(0)->name())};
    if (answer.obstacle.empty())
      retargets_.push_back({&node, input, types_.type(computed).elem, std::move(answer.values)});
    else
      miss(node, std::move(answer.obstacle));
  }

  // 0 copies the data's dim, -1 is what the others leave. A -1 that was no -1 before is inferred
  // only from numbers: beside a copied dim that is 0 at run time, nothing could be inferred.
  Answer reshape_target(const Node& node, const ShapeContents& target, ShapeTracer& tracer) {
    Answer answer;
    const std::size_t rank = *tracer.rank(node.input(0));
    std::optional<std::size_t> open;
    bool infers = false, copies = false;
    for (std::size_t i = 0; i < target.elements.size(); ++i) {
      const ShapeElement& element = target.elements[i];
      if (element.number) {
        if (*element.number == 0 && reshape_allows_zero(node))
          return {{}, "a dim of its target is 0, which is not a copy here"};
        infers |= *element.number == -1;
        copies |= *element.number == 0;
        answer.values.push_back(*element.number);
      } else if (i < rank && tracer.dim(node.input(0), i).key == element.key) {
        copies = true;
        answer.values.push_back(0);
      } else if (open) {
        return {{},
                fmt::format("dims {} and {} of its target are neither numbers nor the data's",
                            *open, i)};
      } else {
        open = i;
        answer.values.push_back(-1);
      }
    }
    if (open && infers)
      return {{},
              fmt::format("dim {} of its target is not known, and another is -1 already", *open)};
    if (open && copies)
      return {{},
              fmt::format("dim {} of its target is not known, and cannot be inferred beside "
                          "copied ones that may be 0",
                          *open)};
    return answer;
  }

  Answer expand_target(const Node& node, const ShapeContents& target, ShapeTracer& tracer) {
    Answer answer;
    const std::size_t rank = *tracer.rank(node.input(0)), size = target.elements.size();
    for (std::size_t i = 0; i < size; ++i) {
      const ShapeElement& element = target.elements[i];
      if (element.number)
        answer.values.push_back(*element.number);
      else if (i + rank >= size && tracer.dim(node.input(0), i + rank - size).key == element.key)
        answer.values.push_back(1);
      else
        return {{}, fmt::format("dim {} of its target is neither a number nor the data's", i)};
    }
    return answer;
  }

  // An end that is the axis' size is as good as any beyond it.
  Answer slice_ends(const Node& node, const ShapeContents& ends, ShapeTracer& tracer) {
    const std::size_t rank = *tracer.rank(node.input(0)), size = ends.elements.size();
    const auto known = [&](std::size_t index,
                           std::int64_t step) -> std::optional<std::vector<std::int64_t>> {
      std::vector<std::int64_t> values(size);
      for (std::size_t i = 0; i < size; ++i)
        values[i] = step == 0 ? static_cast<std::int64_t>(i) : step;
      if (!node.input(index)) return values;
      const Tensor* tensor = types_.known_value(node.input(index));
      return tensor ? std::optional(tensor->to_ints()) : std::nullopt;
    };
    const auto axes = known(3, 0), steps = known(4, 1);
    if (!axes || !steps || axes->size() != size || steps->size() != size)
      return {{}, "its axes or steps are not known"};
    const bool narrow = types_.type(node.input(2)).elem == DType::int32;
    Answer answer;
    for (std::size_t i = 0; i < size; ++i) {
      const ShapeElement& element = ends.elements[i];
      const auto axis = static_cast<std::size_t>(normalize_axis((*axes)[i], rank));
      if (element.number)
        answer.values.push_back(*element.number);
      else if ((*steps)[i] > 0 && tracer.dim(node.input(0), axis).key == element.key)
        answer.values.push_back(narrow ? std::numeric_limits<std::int32_t>::max()
                                       : std::numeric_limits<std::int64_t>::max());
      else
        return {{}, fmt::format("its end on axis {} is neither a number nor the axis' size", axis)};
    }
    return answer;
  }

  void apply_retargets() {
    std::vector<Value*> targets;  // in order
    std::unordered_map<const Value*, std::vector<const Retarget*>> readers;
    for (const Retarget& retarget : retargets_) {
      Value* computed = retarget.node->input(retarget.input);
      if (readers[computed].empty()) targets.push_back(computed);
      readers[computed].push_back(&retarget);
    }
    std::vector<const Retarget*> applied;
    for (Value* computed : targets) {
      const std::vector<const Retarget*>& group = readers.at(computed);
      if (apply(*computed, group)) applied.insert(applied.end(), group.begin(), group.end());
    }
    retargeted_ = std::ssize(applied);
    for (const Retarget* retarget : applied) let_zeros_copy(*retarget);
  }

  // Constants take room: only where the computation goes, and takes as much.
  bool apply(Value& computed, const std::vector<const Retarget*>& readers) {
    std::map<std::vector<std::int64_t>, Patch::Ref> constants;
    std::int64_t bytes = 0;
    Patch patch(computed.graph());
    for (const Retarget* reader : readers) {
      const auto [found, added] = constants.try_emplace(reader->values);
      if (added) {
        Tensor tensor = int_vector(reader->type, reader->values);
        bytes += initializer_bytes(computed.name(), tensor.dims(), stored_bytes(tensor),
                                   model_.ir_version < 4);
        found->second = patch.constant(computed.name(), std::move(tensor));
      }
      patch.replace_input(reader->node, reader->input, found->second);
    }
    const bool goes = computed.uses().size() == readers.size() && !computed.is_output();
    if (bytes > (goes ? exclusive_bytes(computed) : 0)) {
      for (const Retarget* reader : readers)
        miss(*reader->node,
             fmt::format("a constant in place of '{}' would grow the file", computed.name()));
      return false;
    }
    patch.apply();
    return true;
  }

  // A Reshape whose target has zeros that copy must not take them for dims.
  static void let_zeros_copy(const Retarget& retarget) {
    Node& node = *retarget.node;
    if (!node.is("Reshape") || !reshape_allows_zero(node) ||
        std::ranges::find(retarget.values, 0) == retarget.values.end())
      return;
    OpCall call = make_reshape(node.graph().opset(), retarget.values);
    Patch patch(node.graph());
    patch.replace(node.output(), patch.node({.op_type = std::move(call.op_type),
                                             .domain = "",
                                             .name = node.name,
                                             .inputs = {node.input(0), node.input(1)},
                                             .attributes = std::move(call.attributes)}));
    patch.remove(&node);
    patch.apply();
  }

  // At least what goes when nothing reads the value any more.
  static std::int64_t exclusive_bytes(const Value& value, int depth = 0) {
    constexpr int deepest = 32;
    if (const Tensor* tensor = value.constant())
      return field_bytes(value.name().size()) + field_bytes(stored_bytes(*tensor));
    const Node* node = value.producer();
    if (!node || node->output_count() != 1 || depth >= deepest) return 0;
    std::int64_t bytes = node_bytes(*node);
    for (const Value* input : node->inputs())
      if (input && input->uses().size() == 1 && !input->is_output())
        bytes += exclusive_bytes(*input, depth + 1);
    return bytes;
  }

  // --- Computations of the same dims ----------------------------------------------------------

  void merge(Graph& graph, ShapeTracer& tracer) {
    scopes_.emplace_back();
    Patch patch(graph);
    for (Node* node : graph.nodes()) {
      for (Graph* nested : node->subgraphs()) merge(*nested, tracer);
      if (node->output_count() == 1) merge(*node->output(), tracer, patch);
    }
    if (!patch.empty()) patch.apply();
    scopes_.pop_back();
  }

  void merge(Value& value, ShapeTracer& tracer, Patch& patch) {
    const auto& contents = tracer.contents(&value);
    if (!contents || value.is_unused() || contents->all_numbers()) return;
    std::string key = fmt::format("{} {}", name(types_.type(&value).elem), contents->rank);
    for (const ShapeElement& element : contents->elements) key += ' ' + element.key;
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto found = scope->find(key);
      if (found == scope->end()) continue;
      Value& first = *found->second;
      if (value.is_output() || naming_grows(value, first) || !compatible(value.type, first.type))
        return;
      patch.replace(&value, &first);
      ++merged_;
      return;
    }
    scopes_.back().emplace(std::move(key), &value);
  }

  void miss(const Node& node, std::string reason) const {
    if (near_misses_)
      near_misses_->push_back({"simplify_shapes", node.describe(), std::move(reason)});
  }

  Model& model_;
  TypeInference types_;
  std::vector<NearMiss>* near_misses_;
  std::vector<Retarget> retargets_;
  std::vector<std::unordered_map<std::string, Value*>> scopes_;  // outermost first
  std::int64_t retargeted_ = 0;
  std::int64_t merged_ = 0;
};

class SimplifyShapes : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "simplify_shapes",
      .summary = "constant targets for Reshape, Expand and Slice, and shape computations done once",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 50};

  const PassInfo& info() const override { return pass_info; }

  // Values of function bodies have no types; they are left alone.
  Outcome run(Model& model, PassContext& context) const override {
    ShapeSimplifier simplifier(model, context.near_misses);
    simplifier.run();
    const bool changed = simplifier.retargeted() + simplifier.merged() > 0;
    if (changed) remove_unused(model.graph);
    return {
        .changed = changed,
        .counts = {{"constant_targets", simplifier.retargeted()}, {"merged", simplifier.merged()}}};
  }
};

}  // namespace

PASS(simplify_shapes) { registry.add(std::make_unique<SimplifyShapes>()); }

}  // namespace onnxpress
