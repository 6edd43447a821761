// float32 to float16 or bfloat16: half the bytes, the interface as it was.
//
// Inputs and outputs stay float32; Casts stand where a value is made in one type and read in the
// other, one for all readers. What does not fit the type stays float32 and is named in the report.
#include <algorithm>

#include "graph/exec/engine.h"
#include "graph/ir/clone.h"
#include "graph/ops/constant.h"
#include "graph/rewrite/patch.h"
#include "passes/common/batch_norm.h"
#include "passes/convert/float_plan.h"
#include "passes/core/prepared_pass.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "type",
     .kind = OptionSpec::Kind::choice,
     .default_value = "fp16",
     .help = "fp16: 11 significant bits, up to 65504; bf16: 8 bits and float32's range, which ONNX "
             "Runtime on CPU cannot run",
     .choices = "fp16|bf16"},
    {.name = "keep", .kind = OptionSpec::Kind::selector, .help = "nodes that stay float32"},
    {.name = "headroom",
     .kind = OptionSpec::Kind::number,
     .default_value = "2",
     .help = "values that reached more than the type's largest number over this stay float32",
     .min = 1,
     .max = 1e6},
    {.name = "min_snr_db",
     .kind = OptionSpec::Kind::number,
     .default_value = "0",
     .help = "the least signal-to-noise ratio of the outputs, below which the step is undone; 0: "
             "30 for fp16, 15 for bf16",
     .min = 0,
     .max = 200},
};

// Copies of float32 constants that are this small are made rather than Casts of them.
constexpr std::size_t small_constant_bytes = 64;
// About what a Cast takes in the file.
constexpr std::int64_t cast_bytes = 90;

// Turns a plan into a patch.
class Converter {
 public:
  Converter(Graph& graph, const FloatPlan& plan, DType type)
      : graph_(graph), plan_(plan), type_(type), patch_(graph) {}

  void convert() {
    const std::vector<Node*> nodes = graph_.nodes();
    for (Node* node : nodes)
      if (const NarrowFloatForm* form = plan_.form(node)) rebuild(*node, *form);
    for (Node* node : nodes) {
      if (!plan_.form(node)) continue;
      for (Value* output : node->outputs())
        if (output && !output->is_unused() && needs_original(*output))
          patch_.replace(output, original(output));
      patch_.remove_if_unread(node);
    }
  }

  std::int64_t casts() const { return casts_; }
  std::int64_t bytes_saved() const { return bytes_saved_; }

  void apply() {
    patch_.apply();
    // Under the old names, now free.
    for (const auto& [constant, name] : constants_) {
      Value* value = patch_.value(constant);
      if (value && graph_.unique_name(name) == name) graph_.rename(value, name);
    }
  }

 private:
  bool is_narrow(const Value& value) const {
    const NarrowFloatForm* form = value.producer() ? plan_.form(value.producer()) : nullptr;
    return form && std::ranges::find(form->outputs, value.output_index()) != form->outputs.end();
  }

  static bool reads_narrow(const FloatPlan& plan, const Use& use) {
    const NarrowFloatForm* form = plan.form(use.node);
    return form && std::ranges::find(form->inputs, use.index) != form->inputs.end();
  }

  // Somebody outside the nodes made anew reads it, or it is an output.
  bool needs_original(const Value& value) const {
    return value.is_output() ||
           std::ranges::any_of(value.uses(), [&](const Use& use) { return !plan_.form(use.node); });
  }

  Patch::Ref cast(Patch::Ref of, DType to, const std::string& name) {
    ++casts_;
    return patch_.node({.op_type = "Cast",
                        .name = name,
                        .inputs = {of},
                        .attributes = make_cast(graph_.opset(), to).attributes});
  }

  // The value in its own type.
  Patch::Ref original(Value* value) {
    if (value == nullptr || !value->producer() || !plan_.form(value->producer())) return value;
    const Patch::Ref made = made_.at(value);
    if (!is_narrow(*value)) return made;
    const auto found = originals_.find(value);
    if (found != originals_.end()) return found->second;
    return originals_.emplace(value, cast(made, DType::float32, value->name() + "_float32"))
        .first->second;
  }

  // The float32 value in the narrow type.
  Patch::Ref narrow(Value* value) {
    if (is_narrow(*value)) return made_.at(value);
    const auto found = narrow_.find(value);
    if (found != narrow_.end()) return found->second;
    return narrow_.emplace(value, make_narrow(value)).first->second;
  }

  Patch::Ref make_narrow(Value* value) {
    if (const std::optional<Tensor> constant = constant_contents(value);
        constant && may_copy(*value, *constant)) {
      bytes_saved_ += static_cast<std::int64_t>(constant->byte_size() / 2);
      const Patch::Ref made = patch_.constant(value->name(), constant->cast(type_));
      constants_.emplace_back(made, value->name());
      if (value->producer()) patch_.remove_if_unread(value->producer());
      return made;
    }
    return cast(original(value), type_, fmt::format("{}_{}", value->name(), name(type_)));
  }

  // The float32 constant goes, or is small.
  bool may_copy(const Value& value, const Tensor& constant) const {
    if (constant.byte_size() <= small_constant_bytes) return true;
    return !value.is_output() && std::ranges::all_of(value.uses(), [&](const Use& use) {
      return reads_narrow(plan_, use);
    });
  }

  void rebuild(Node& node, const NarrowFloatForm& form) {
    std::vector<Patch::Ref> inputs;
    for (std::size_t i = 0; i < node.input_count(); ++i) {
      const bool takes_narrow = std::ranges::find(form.inputs, i) != form.inputs.end();
      inputs.push_back(takes_narrow ? narrow(node.input(i)) : original(node.input(i)));
    }
    ValueMap map;
    Patch::NodeTemplate made{.op_type = node.op_type(),
                             .domain = node.domain(),
                             .name = node.name,
                             .inputs = std::move(inputs),
                             .outputs = node.output_count()};
    for (const auto& [key, attribute] : form.attributes)
      made.attributes.emplace(key, clone_attribute(attribute, &graph_, map));
    const Patch::Ref first = patch_.node(std::move(made));
    for (std::size_t i = 0; i < node.output_count(); ++i)
      if (node.output(i)) made_[node.output(i)] = patch_.output(first, i);
  }

  Graph& graph_;
  const FloatPlan& plan_;
  DType type_;
  Patch patch_;
  std::int64_t casts_ = 0, bytes_saved_ = 0;
  std::vector<std::pair<Patch::Ref, std::string>> constants_;
  std::unordered_map<const Value*, Patch::Ref> made_, originals_, narrow_;
};

class ConvertFloat : public Pass, public PreparedPass {
 public:
  static constexpr PassInfo pass_info{
      .name = "convert_float",
      .summary = "float16 or bfloat16 instead of float32: half the size; what does not fit stays",
      .options = option_specs,
      .effect = Effect::approximate,
      .needs = Needs::optional_calibration};

  const PassInfo& info() const override { return pass_info; }

  // In float32 BatchNormalization is folded to the last bits; in the narrow type no more. Nodes that are to be kept may
  // be meant, so nothing is folded then.
  std::vector<std::string> preparations(const Model& model, const Options& options) const override {
    if (options.given("keep") || !has_unfolded_batch_norm(model)) return {};
    return {"fuse_conv_bn"};
  }

  Outcome run(Model& model, PassContext& context) const override {
    const bool half = context.options.text("type") == "fp16";
    const DType type = half ? DType::float16 : DType::bfloat16;
    const double stated = context.options.number("min_snr_db");
    Outcome outcome{.min_snr_db = stated > 0 ? stated : half ? 30.0 : 15.0};

    std::optional<ValueRanges> ranges;
    if (half) ranges = known_ranges(model, context, outcome);
    TypeInference types(model);
    types.run();
    const Selector keep(context.options.text("keep"));
    const double largest =
        (half ? 65504.0 : 3.3895313892515355e38) / context.options.number("headroom");
    const FloatPlan plan = plan_floats(model.graph, types,
                                       {.type = type,
                                        .largest = half ? largest : std::max(largest, 1e38),
                                        .keep = context.options.given("keep") ? &keep : nullptr,
                                        .ranges = ranges ? &*ranges : nullptr});
    Converter converter(model.graph, plan, type);
    converter.convert();
    std::size_t converted = plan.narrow.size();
    if (converted > 0 && converter.bytes_saved() <= converter.casts() * cast_bytes) {
      outcome.notes.push_back(
          fmt::format("left as it was: {} bytes of weights would go, {} Casts come",
                      converter.bytes_saved(), converter.casts()));
      converted = 0;
    } else if (converted > 0) {
      // Before nodes go.
      outcome.layers = rows(plan, type, ranges ? &*ranges : nullptr);
      tell_left(plan, type, context, outcome);
      converter.apply();
      outcome.changed = true;
    } else {
      outcome.notes.push_back("no node to convert");
      tell_left(plan, type, context, outcome);
    }
    outcome.counts = {{"converted", converted},
                      {"left", plan.left.size()},
                      {"casts", outcome.changed ? converter.casts() : 0}};
    return outcome;
  }

 private:
  static std::optional<ValueRanges> known_ranges(const Model& model, PassContext& context,
                                                 Outcome& outcome) {
    if (const std::vector<std::string> missing = Engine::unsupported(model); !missing.empty()) {
      outcome.notes.push_back(
          fmt::format("RANGES NOT KNOWN: the model does not run ({}); only constants were checked",
                      fmt::join(missing, ", ")));
      return std::nullopt;
    }
    ValueRanges ranges;
    try {
      ranges = observe_ranges(model, context);
    } catch (const Error& error) {
      // Generated inputs need not suit the model; data that was given must.
      if (context.calibration) throw;
      outcome.notes.push_back(
          fmt::format("RANGES NOT KNOWN: it does not run on generated inputs ({}); only constants "
                      "were checked; give --calib DATA",
                      error.what()));
      return std::nullopt;
    }
    if (ranges.generated)
      outcome.notes.push_back(
          "RANGES FROM GENERATED INPUTS: real ones may leave the range of float16; give --calib "
          "DATA");
    else
      outcome.notes.push_back(fmt::format("ranges of {}", ranges.source));
    return ranges;
  }

  static double largest_of(const Node& node, const ValueRanges& ranges) {
    double largest = 0;
    for (const Value* input : node.inputs())
      if (input && !input->constant()) largest = std::max(largest, ranges.of(*input));
    for (const Value* output : node.outputs())
      if (output) largest = std::max(largest, ranges.of(*output));
    return largest;
  }

  static std::vector<Json> rows(const FloatPlan& plan, DType type, const ValueRanges* ranges) {
    std::vector<Json> rows;
    for (const Node* node : plan.nodes) {
      const auto left = plan.left.find(node);
      std::size_t constants = 0;
      for (const Value* input : node->inputs())
        if (input && input->constant() && input->constant()->dtype() == DType::float32)
          constants += input->constant()->byte_size();
      rows.push_back(
          {{"node", node->name.empty() && node->output() ? node->output()->name() : node->name},
           {"op", node->op_type()},
           {"type", name(left == plan.left.end() ? type : DType::float32)},
           {"why", left == plan.left.end() ? Json() : Json(left->second)},
           {"largest", ranges ? Json(largest_of(*node, *ranges)) : Json()},
           {"bytes_before", constants},
           {"bytes_after", left == plan.left.end() ? constants / 2 : constants}});
    }
    return rows;
  }

  // Nodes that do not fit are named, those for which the opset is too old counted; others can be asked for.
  static void tell_left(const FloatPlan& plan, DType type, PassContext& context, Outcome& outcome) {
    std::int64_t too_old = 0, wanted = 0;
    for (const Node* node : plan.nodes) {
      const auto left = plan.left.find(node);
      if (left == plan.left.end()) continue;
      if (const std::int64_t since = narrow_float_opset(*node, type); since > node->opset()) {
        ++too_old;
        wanted = std::max(wanted, since);
      }
      if (left->second.starts_with("'") || left->second.starts_with("constant"))
        outcome.notes.push_back(
            fmt::format("{} stays float32: {}", node->describe(), left->second));
      if (context.near_misses)
        context.near_misses->push_back(
            {std::string(pass_info.name), node->describe(), left->second});
    }
    if (too_old > 0)
      outcome.notes.push_back(
          fmt::format("{} {} {} float32 because the model's opset has no {} for {}: run "
                      "upgrade_opset{{target={}}} before",
                      too_old, too_old == 1 ? "node" : "nodes", too_old == 1 ? "stays" : "stay", name(type),
                      too_old == 1 ? "it" : "them", wanted));
  }
};

}  // namespace

PASS(convert_float) { registry.add(std::make_unique<ConvertFloat>()); }

}  // namespace onnxpress
