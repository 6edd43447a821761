#include "graph/exec/losses.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "graph/ops/softmax.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

using Kind = LossTerm::Kind;

struct KindInfo {
  Kind kind;
  std::string_view name, op_type;
};

constexpr std::array kinds = {
    KindInfo{Kind::cross_entropy, "cross_entropy", "CrossEntropy"},
    KindInfo{Kind::distillation, "distillation", "Distillation"},
    KindInfo{Kind::decoupled_distillation, "decoupled_distillation", "DecoupledDistillation"},
    KindInfo{Kind::logits_mse, "logits_mse", "SquaredError"},
    KindInfo{Kind::attention_transfer, "attention_transfer", "AttentionTransfer"},
    KindInfo{Kind::relational_distance, "relational_distance", "RelationalDistance"},
    KindInfo{Kind::relational_angle, "relational_angle", "RelationalAngle"},
    KindInfo{Kind::binary_cross_entropy, "binary_cross_entropy", "BinaryCrossEntropy"},
    KindInfo{Kind::mse, "mse", "SquaredError"},
    KindInfo{Kind::l1, "l1", "AbsoluteError"},
    KindInfo{Kind::huber, "huber", "Huber"},
    KindInfo{Kind::kl, "kl", "KlDivergence"},
    KindInfo{Kind::gaussian_kl, "gaussian_kl", "GaussianKl"},
    KindInfo{Kind::ctc, "ctc", "CtcLoss"},
};

const KindInfo& info(Kind kind) {
  return *std::ranges::find(kinds, kind, &KindInfo::kind);
}

Value* producer_input(const Value* value) {
  return value->producer() != nullptr ? value->producer()->input(0) : nullptr;
}

Value* behind_identities(Value* value) {
  while (value->producer() != nullptr && value->producer()->is("Identity"))
    value = value->producer()->input(0);
  return value;
}

class Appender {
 public:
  explicit Appender(Model& model) : model_(model), graph_(model.graph) {
    model_.opsets.emplace(training_domain, 1);
  }

  AppendedLoss append(std::span<const LossTerm> terms) {
    require(!terms.empty(), "expected at least one loss, found none");
    std::vector<Value*> losses;
    std::vector<float> weights;
    for (const LossTerm& term : terms) {
      losses.push_back(add(term));
      weights.push_back(static_cast<float>(term.weight));
    }
    Value* sum = losses.front();
    if (terms.size() > 1 || terms.front().weight != 1) {
      NodeSpec spec{.op_type = "WeightedSum", .domain = std::string(training_domain),
                    .inputs = losses, .outputs = {graph_.unique_name("loss")}};
      spec.attributes["weights"] = weights;
      sum = graph_.add_node(std::move(spec))->output();
    }
    graph_.add_output(sum);
    done_.output = sum->name();
    if (terms.size() > 1)
      for (Value* loss : losses) {
        graph_.add_output(loss);
        done_.terms.push_back(loss->name());
      }
    return std::move(done_);
  }

 private:
  Value* find(const std::string& wanted) const {
    if (wanted.empty()) {
      require(!graph_.outputs().empty(), "the model has no output to train");
      return graph_.outputs().front();
    }
    Value* value = graph_.find(wanted);
    require(value != nullptr, "expected an output '{}', found none", wanted);
    return value;
  }

  // The scores that a loss works on, and its class axis where the operator behind them says it.
  Value* scores(const LossTerm& term, Attributes& attributes) {
    Value* given = find(term.output);
    Value* logits = logits_of(given);
    if (logits == given) return given;
    const Node& activation = *behind_identities(given)->producer();
    const bool is_sigmoid = activation.is("Sigmoid");
    const bool wants_sigmoid = term.kind == Kind::binary_cross_entropy;
    if (is_sigmoid != wants_sigmoid && term.kind != Kind::logits_mse) {
      require(wants_sigmoid, "output '{}': {} on the result of a Sigmoid: binary_cross_entropy is meant",
              given->name(), name(term.kind));
      fail("output '{}': binary_cross_entropy on the result of a {}: cross_entropy is meant",
           given->name(), activation.op_type());
    }
    if (!is_sigmoid && term.kind != Kind::ctc && term.kind != Kind::logits_mse)
      if (const SoftmaxAttrs attrs = SoftmaxAttrs::from(activation); !attrs.flattens)
        attributes["axis"] = attrs.axis;
    done_.notes.push_back(fmt::format("{} on the input of the {} that gives '{}'", name(term.kind),
                                      activation.op_type(), given->name()));
    return logits;
  }

  Value* target(const LossTerm& term, Type type, std::string_view what = "target") {
    const std::string hint = fmt::format("{}_{}", find(term.output)->name(), what);
    Value* input = graph_.add_input(graph_.unique_name(hint), std::move(type));
    done_.targets.push_back(input->name());
    return input;
  }

  Value* add(const LossTerm& term) {
    NodeSpec spec{.op_type = std::string(info(term.kind).op_type),
                  .domain = std::string(training_domain),
                  .outputs = {graph_.unique_name(fmt::format("loss_{}", name(term.kind)))}};
    const bool is_element_loss = term.kind == Kind::mse || term.kind == Kind::l1 ||
                                 term.kind == Kind::huber || term.kind == Kind::binary_cross_entropy;
    switch (term.kind) {
      case Kind::cross_entropy:
      case Kind::distillation:
        spec.inputs = {scores(term, spec.attributes)};
        // Labels or probabilities: what is given decides.
        spec.inputs.push_back(target(term, Type()));
        if (term.label_smoothing != 0) spec.attributes["label_smoothing"] = term.label_smoothing;
        if (term.ignored) spec.attributes["ignore_index"] = *term.ignored;
        if (term.temperature != 1) spec.attributes["temperature"] = term.temperature;
        break;
      case Kind::decoupled_distillation:
        spec.inputs = {scores(term, spec.attributes), target(term, Type(), "teacher"), target(term, Type())};
        spec.attributes["temperature"] = term.temperature;
        spec.attributes["target_weight"] = term.target_weight;
        spec.attributes["other_weight"] = term.other_weight;
        break;
      case Kind::ctc:
        spec.inputs = {scores(term, spec.attributes), target(term, Type()), nullptr, nullptr};
        if (term.has_lengths) spec.inputs[2] = target(term, Type::tensor(DType::int64), "length");
        if (term.has_target_lengths) spec.inputs[3] = target(term, Type::tensor(DType::int64), "target_length");
        spec.attributes["blank"] = term.blank;
        if (term.batch_first) spec.attributes["batch_first"] = std::int64_t{1};
        break;
      case Kind::gaussian_kl:
        require(!term.log_variance.empty(), "gaussian_kl: expected the name of the log variances");
        spec.inputs = {find(term.output), find(term.log_variance)};
        break;
      case Kind::binary_cross_entropy:
      case Kind::logits_mse:
        spec.inputs = {scores(term, spec.attributes), target(term, Type())};
        break;
      default:
        spec.inputs = {find(term.output), target(term, Type())};
    }
    if (term.kind == Kind::huber) spec.attributes["delta"] = term.delta;
    if (is_element_loss && term.by_sample) spec.attributes["reduction"] = "batch";
    return graph_.add_node(std::move(spec))->output();
  }

  Model& model_;
  Graph& graph_;
  AppendedLoss done_;
};

}  // namespace

std::string_view name(Kind kind) { return info(kind).name; }

std::optional<Kind> loss_from_name(std::string_view text) {
  const auto found = std::ranges::find(kinds, text, &KindInfo::name);
  return found != kinds.end() ? std::optional(found->kind) : std::nullopt;
}

AppendedLoss append_loss(Model& model, std::span<const LossTerm> terms) {
  return Appender(model).append(terms);
}

Value* logits_of(Value* value) {
  const Value* last = behind_identities(value);
  const Node* node = last->producer();
  if (node == nullptr) return value;
  const bool is_activation = node->is("Softmax") || node->is("LogSoftmax") || node->is("Sigmoid");
  return is_activation ? producer_input(last) : value;
}

}  // namespace onnxpress
