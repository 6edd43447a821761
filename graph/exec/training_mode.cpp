#include "graph/exec/training_mode.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "graph/ops/attributes.h"
#include "graph/ops/batch_norm.h"
#include "graph/ops/constant.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

class Changer {
 public:
  Changer(Model& model, const TrainingMode& mode)
      : model_(model), graph_(model.graph), mode_(mode), domain_(training_domain) {}

  TrainingModeChanges run() {
    model_.opsets.emplace(domain_, 1);
    for (const auto& [mean, log_variance] : mode_.samples) add_sample(mean, log_variance);
    for (const auto& [name, ratio] : mode_.dropout) add_dropout(name, ratio);
    for (Node* node : graph_.nodes()) {
      if (mode_.batch_statistics && node->is("BatchNormalization")) change_batch_norm(node);
      if (mode_.keep_dropout && node->is("Dropout")) change_dropout(node);
    }
    return std::move(changes_);
  }

 private:
  Value* find(const std::string& name) const {
    Value* value = graph_.find(name);
    require(value != nullptr, "expected a value '{}' in the main graph, found none", name);
    return value;
  }

  Value* key() {
    if (key_ != nullptr) return key_;
    key_ = graph_.add_input(graph_.unique_name("noise_key"), Type::tensor(DType::int64, Shape{}));
    changes_.key = key_->name();
    return key_;
  }

  Attributes noise(std::optional<double> ratio = std::nullopt) {
    Attributes attributes;
    attributes["salt"] = salt_++;
    if (ratio) attributes["ratio"] = *ratio;
    return attributes;
  }

  // The readers of `value`, but its listings as output, read what the new node gives instead.
  void put_behind(Value* value, NodeSpec spec) {
    const std::vector<Use> uses(value->uses().begin(), value->uses().end());
    Node* before = nullptr;
    for (Node* node : graph_.nodes()) {
      const bool reads = std::ranges::any_of(
          uses, [&](const Use& use) { return graph_.holder(use.node) == node; });
      if (reads) {
        before = node;
        break;
      }
    }
    Node* added = graph_.add_node(std::move(spec), before);
    for (const Use& use : uses) graph_.set_node_input(use.node, use.index, added->output());
  }

  void add_dropout(const std::string& name, double ratio) {
    require(ratio >= 0 && ratio < 1, "dropout of '{}': expected a ratio from 0 to below 1, found {}",
            name, ratio);
    Value* value = find(name);
    if (ratio == 0) return;
    put_behind(value, {.op_type = "Dropout",
                       .domain = domain_,
                       .inputs = {value, key()},
                       .attributes = noise(ratio)});
  }

  void add_sample(const std::string& mean, const std::string& log_variance) {
    Value* value = find(mean);
    Value* deviation = find(log_variance);
    put_behind(value, {.op_type = "GaussianSample",
                       .domain = domain_,
                       .inputs = {value, deviation, key()},
                       .attributes = noise()});
    graph_.sort();
  }

  void change_batch_norm(Node* node) {
    const Value *scale = node->input(1), *mean = node->input(3), *variance = node->input(4);
    const auto is_parameter = [](const Value* value) {
      return value != nullptr && value->initializer() != nullptr;
    };
    if (!is_parameter(mean) || !is_parameter(variance)) return;
    if (scale != nullptr && mode_.frozen.contains(scale->name())) return;
    const BatchNormAttrs attrs = BatchNormAttrs::from(*node);
    if (!attrs.per_channel || attrs.training) return;
    NodeSpec spec{.op_type = "BatchNormalization",
                  .domain = domain_,
                  .name = node->name,
                  .inputs = {node->inputs().begin(), node->inputs().end()},
                  .outputs = {"", "", "", "", ""}};
    spec.attributes["epsilon"] = attrs.epsilon;
    spec.attributes["momentum"] = attrs.momentum;
    Node* added = graph_.add_node(std::move(spec), node);
    graph_.replace_uses(node->output(), added->output());
    graph_.remove(node);
    const std::pair<const Value*, std::size_t> running[] = {{mean, 1}, {variance, 2}};
    for (const auto& [initializer, index] : running) {
      graph_.add_output(added->output(index));
      changes_.running.push_back({initializer->name(), added->output(index)->name()});
    }
  }

  // Whatever its mode says: a model that was exported for inference is trained now.
  void change_dropout(Node* node) {
    double ratio = 0.5;
    if (node->opset() < 12)
      ratio = double{get_float(*node, "ratio", 0.5f)};
    else if (const Value* given = node->input(1)) {
      const auto contents = constant_contents(given);
      if (!contents || contents->size() != 1) {
        changes_.notes.push_back(
            fmt::format("{}: the ratio is not constant: nothing is dropped", node->describe()));
        return;
      }
      ratio = contents->cast(DType::float64).data<double>()[0];
    }
    if (ratio == 0) return;
    if (node->output(1) != nullptr && !node->output(1)->is_unused()) {
      changes_.notes.push_back(
          fmt::format("{}: its mask is read: nothing is dropped", node->describe()));
      return;
    }
    Node* added = graph_.add_node({.op_type = "Dropout",
                                   .domain = domain_,
                                   .name = node->name,
                                   .inputs = {node->input(0), key()},
                                   .attributes = noise(ratio)},
                                  node);
    graph_.replace_uses(node->output(), added->output());
    graph_.remove(node);
  }

  Model& model_;
  Graph& graph_;
  const TrainingMode& mode_;
  std::string domain_;
  Value* key_ = nullptr;
  std::int64_t salt_ = 0;
  TrainingModeChanges changes_;
};

}  // namespace

TrainingModeChanges set_training_mode(Model& model, const TrainingMode& mode) {
  return Changer(model, mode).run();
}

}  // namespace onnxpress
