#include "passes/quantize/layerwise.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "graph/base/error.h"
#include "graph/kernels/onednn_threads.h"
#include "graph/rewrite/inline.h"
#include "passes/quantize/adaround.h"
#include "passes/quantize/layer_problem.h"

namespace onnxpress {
namespace {

constexpr std::size_t most_bytes = std::size_t{256} << 20;  // of what layers that are rounded together hold
constexpr std::size_t most_sample_bytes = std::size_t{96} << 20;

// Of a column that gradient steps look at.
std::size_t sample_bytes(const WeightMatrix& matrix) {
  return static_cast<std::size_t>(matrix.groups * (matrix.depth + matrix.rows)) * sizeof(float);
}

std::int64_t sample_count(const WeightMatrix& matrix) {
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(most_sample_bytes / sample_bytes(matrix)), 512, 16384);
}

std::vector<Node*> nodes_of(const Model& model) {
  std::vector<Node*> nodes;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (Node* node : graph.nodes()) nodes.push_back(node);
  });
  return nodes;
}

// Whether a value depends on what one of `nodes` computes.
bool depends(const Value& value, const std::unordered_set<const Node*>& nodes) {
  std::vector<const Value*> open{&value};
  std::unordered_set<const Value*> seen;
  const auto visit = [&](const Value* next) {
    if (next && seen.insert(next).second) open.push_back(next);
  };
  while (!open.empty()) {
    const Value& next = *open.back();
    open.pop_back();
    const Node* producer = next.producer();
    // The input of a body: what its operator reads, and what the body made in its last run.
    const Node* source = producer ? producer : next.graph().owner();
    if (!source || next.is_constant()) continue;
    if (producer && nodes.contains(producer)) return true;
    for (const Value* input : source->inputs()) visit(input);
    for (const Graph* body : source->subgraphs())
      for (const Value* output : body->outputs()) visit(output);
  }
  return false;
}

// A weight that is looked at with its inputs; nodes and values are those of the copy that runs.
struct Layer {
  std::size_t task = 0;
  Value* weight = nullptr;
  const Node* node = nullptr;
  std::vector<std::unique_ptr<ColumnReader>> readers;
};

class Rounder {
 public:
  Rounder(const Model& model, const std::vector<RoundingTask>& tasks, PassContext& context,
          const QuantizeRequest& request)
      : tasks_(tasks),
        context_(context),
        request_(request),
        data_(*context.calibration, request.rounding_samples),
        exact_(model.clone()),
        results_(tasks.size()) {
    find_layers(model);
    inline_functions(*exact_);
    rounded_ = exact_->clone();
  }

  std::vector<RoundingResult> run() {
    for (std::size_t done = 0; done < layers_.size();) {
      const std::size_t end = end_of_stage(done);
      round_stage(done, end);
      done = end;
      if (context_.progress) context_.progress("rounding", done, layers_.size());
    }
    return std::move(results_);
  }

 private:
  void fall_back(std::size_t task, std::string reason) {
    results_[task] = round_on_own_grid(context_.pool, tasks_[task], Rounding::mse);
    if (results_[task].note.empty()) results_[task].note = fmt::format("rounded to nearest: {}", reason);
  }

  void find_layers(const Model& model) {
    const std::vector<Node*> nodes = nodes_of(model), copies = nodes_of(*exact_);
    std::unordered_map<const Node*, Node*> copy_of;
    for (std::size_t i = 0; i < nodes.size(); ++i) copy_of[nodes[i]] = copies[i];
    for (std::size_t t = 0; t < tasks_.size(); ++t) {
      const Weight& weight = tasks_[t].weight;
      if (weight.node->input(weight.operand) != weight.value) {
        fall_back(t, "it is moved on its way to its operator; simplify folds that");
        continue;
      }
      Layer layer{.task = t, .node = copy_of.at(weight.node)};
      layer.weight = layer.node->input(weight.operand);
      const Tensor& tensor = *weight.value->constant();
      const std::vector<float> values = tensor.to_floats();
      if (!std::ranges::all_of(values, [](float v) { return std::isfinite(v); })) continue;  // no result
      std::string reason;
      auto first = column_reader(*layer.node, weight.operand, tensor.dims(), reason);
      if (first && first->source().is_constant()) reason = "its input is a constant";
      if (first && first->matrix().size() == 0) reason = "it is empty";
      if (!reason.empty() || !has_free_scales(tasks_[t])) {
        fall_back(t, reason);
        continue;
      }
      layer.readers.push_back(std::move(first));
      for (const Use& use : layer.weight->uses()) {
        if (use.node == layer.node && use.index == weight.operand) continue;
        auto other = column_reader(*use.node, use.index, tensor.dims(), reason);
        if (other && !other->source().is_constant() && other->matrix() == layer.readers[0]->matrix())
          layer.readers.push_back(std::move(other));
      }
      layers_.push_back(std::move(layer));
    }
  }

  // Layers from `begin` that do not depend on each other and whose sums fit into memory.
  std::size_t end_of_stage(std::size_t begin) const {
    std::unordered_set<const Node*> nodes;
    std::size_t bytes = 0, end = begin;
    for (; end < layers_.size(); ++end) {
      const Layer& layer = layers_[end];
      const WeightMatrix& matrix = layer.readers[0]->matrix();
      bytes += LayerProblem::bytes(matrix, begin > 0);
      if (request_.rounding == Rounding::adaround)
        bytes += static_cast<std::size_t>(sample_count(matrix)) * sample_bytes(matrix);
      const bool waits = std::ranges::any_of(
          layer.readers, [&](const auto& reader) { return depends(reader->source(), nodes); });
      if (end > begin && (waits || bytes > most_bytes)) break;
      for (const Use& use : layer.weight->uses()) nodes.insert(use.node);
    }
    return end;
  }

  void round_stage(std::size_t begin, std::size_t end) {
    const bool with_drift = begin > 0;
    const bool by_gradient = request_.rounding == Rounding::adaround;
    std::vector<LayerProblem> problems;
    std::vector<SampledColumns> samples;
    std::vector<std::vector<float>> weights;  // [groups, rows, depth]
    std::vector<ColumnRequest> requests;
    for (std::size_t i = begin; i < end; ++i) {
      const RoundingTask& task = tasks_[layers_[i].task];
      const Tensor& tensor = *task.weight.value->constant();
      const WeightMatrix& matrix = layers_[i].readers[0]->matrix();
      problems.emplace_back(matrix, tensor.dims(), tensor.to_floats(), task.granularity, scale_rules(task), with_drift);
      ColumnRequest& wanted = requests.emplace_back();
      for (const auto& reader : layers_[i].readers) wanted.readers.push_back(reader.get());
      wanted.most = std::max<std::int64_t>(32768, 4 * matrix.depth);
      if (by_gradient) {
        samples.emplace_back(matrix, sample_count(matrix), wanted.most);
        std::vector<float>& weight = weights.emplace_back();
        const std::vector<float> values = tensor.to_floats();
        for (std::int64_t group = 0; group < matrix.groups; ++group)
          for (std::int64_t row = 0; row < matrix.rows; ++row)
            for (std::int64_t d = 0; d < matrix.depth; ++d)
              weight.push_back(values[static_cast<std::size_t>(matrix.element(group, row, d))]);
      }
    }
    stream_columns(*exact_, with_drift ? rounded_.get() : nullptr, requests, data_, context_,
                   [&](std::size_t layer, const ColumnBlock& block) {
                     set_onednn_threads(1);
                     problems[layer].add(context_.pool, block);
                     if (by_gradient) samples[layer].add(block, weights[layer]);
                     set_onednn_threads(context_.pool.size());
                   });
    set_onednn_threads(1);
    for (std::size_t i = begin; i < end; ++i) {
      LayerProblem& problem = problems[i - begin];
      if (problem.columns() == 0) {
        fall_back(layers_[i].task, "no calibration sample reached it");
        continue;
      }
      problem.prepare(context_.pool, request_.damping);
      problem.round(context_.pool, request_.act_order, refinement_turns);
      if (by_gradient) {
        samples[i - begin].shuffle(context_.seed);
        const WeightMatrix& matrix = problem.matrix();
        adaround(context_.pool, problem, samples[i - begin],
                 FollowingActivation::of(*layers_[i].node, tasks_[layers_[i].task].weight.operand,
                                         matrix.groups * matrix.rows),
                 request_.rounding_steps);
      }
      finish(layers_[i], problem);
    }
    set_onednn_threads(context_.pool.size());
  }

  void finish(const Layer& layer, const LayerProblem& problem) {
    const Tensor& tensor = *tasks_[layer.task].weight.value->constant();
    const std::vector<std::int32_t> codes = problem.codes();
    RoundingResult& result = results_[layer.task];
    result.quantized = with_codes(tensor, problem.grid(), codes);
    result.output_snr_db = problem.output_snr_db(context_.pool);
    Tensor values(DType::float32, tensor.dims());
    const auto out = values.mutable_data<float>();
    for_each_scale_run(tensor.dims(), problem.grid().granularity,
                       [&](std::int64_t group, std::int64_t begin, std::int64_t count) {
                         for (std::int64_t i = begin; i < begin + count; ++i)
                           out[static_cast<std::size_t>(i)] =
                               dequantize(codes[static_cast<std::size_t>(i)],
                                          problem.grid().parameters[static_cast<std::size_t>(group)]);
                       });
    Value* value = rounded_weight(layer);
    value->graph().set_initializer(value, values.cast(tensor.dtype()));
  }

  // The layer's weight in the copy with rounded weights.
  Value* rounded_weight(const Layer& layer) {
    if (rounded_nodes_.empty()) {
      const std::vector<Node*> nodes = nodes_of(*exact_), copies = nodes_of(*rounded_);
      for (std::size_t i = 0; i < nodes.size(); ++i) rounded_nodes_[nodes[i]] = copies[i];
    }
    return rounded_nodes_.at(layer.node)->input(tasks_[layer.task].weight.operand);
  }

  static constexpr int refinement_turns = 12;

  const std::vector<RoundingTask>& tasks_;
  PassContext& context_;
  const QuantizeRequest& request_;
  CalibrationSubset data_;
  std::unique_ptr<Model> exact_, rounded_;
  std::vector<Layer> layers_;
  std::unordered_map<const Node*, Node*> rounded_nodes_;
  std::vector<RoundingResult> results_;
};

}  // namespace

std::vector<RoundingResult> round_layers(const Model& model, const std::vector<RoundingTask>& tasks,
                                         PassContext& context, const QuantizeRequest& request) {
  require(context.calibration, "method={} looks at what weights are multiplied with: it needs calibration data",
          request.rounding == Rounding::gptq ? "gptq" : "adaround");
  return Rounder(model, tasks, context, request).run();
}

}  // namespace onnxpress
