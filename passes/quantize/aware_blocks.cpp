#include "passes/quantize/aware_blocks.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "graph/exec/engine.h"
#include "passes/quantize/spread_dataset.h"

namespace onnxpress {
namespace {

// Some samples: what the model is given, and the value between two blocks as each of the models has it.
struct Chunk {
  Batch batch;
  std::map<std::string, Tensor> inputs;  // of the model, by name
  Tensor exact, rounded;                 // undefined before the first block
};

// Samples of one block: inputs in its model's order, what its ends are to be as further arrays.
class BlockData final : public Dataset {
 public:
  explicit BlockData(std::vector<Batch> batches) : batches_(std::move(batches)) {
    for (const Batch& batch : batches_) count_ += batch.samples;
  }
  std::int64_t samples() const override { return count_; }
  bool labelled() const override { return false; }
  void rewind() override { next_ = 0; }
  bool next(Batch& batch) override {
    if (next_ == batches_.size()) return false;
    batch = batches_[next_++];
    return true;
  }
  std::string description() const override { return "values between blocks"; }
  std::string hash() const override { return {}; }

 private:
  std::vector<Batch> batches_;
  std::size_t next_ = 0;
  std::int64_t count_ = 0;
};

std::string end_name(std::size_t number) { return fmt::format("end_{}", number); }

double mean_square(const std::vector<Batch>& batches, const std::string& name) {
  double sum = 0, count = 0;
  for (const Batch& batch : batches) {
    const Tensor wide = batch.further.at(name).cast(DType::float64);
    for (const double value : wide.data<double>()) sum += value * value;
    count += static_cast<double>(wide.size());
  }
  return count > 0 ? sum / count : 0;
}

class BlockTrainer {
 public:
  BlockTrainer(const Model& model, FakeQuantized& fake, const BlockTraining& how, const Options& options,
               PassContext& context)
      : model_(model), fake_(fake), how_(how), options_(options), context_(context) {}

  TrainingReport run() {
    read_samples();
    const std::vector<Block> blocks =
        find_blocks(model_, trained_weights(), [this](const Value& value) { return may_end(value); });
    if (blocks.empty()) throw Unsuitable("objective=blocks: no output depends on a weight that is trained");
    Json records = Json::array();
    for (const Block& block : blocks) records.push_back(train(block));
    if (!report_.record.contains("loss")) throw Unsuitable("objective=blocks: no block has a parameter that is trained");
    report_.record["blocks"] = std::move(records);
    report_.notes.push_back(
        fmt::format("{} blocks were trained one after another on {} samples", blocks.size(), samples_));
    return std::move(report_);
  }

 private:
  void read_samples() {
    SpreadDataset data(*context_.training, how_.samples);
    data.rewind();
    const std::vector<Value*> required = model_.required_inputs();
    for (Batch batch; data.next(batch);) {
      if (!batch.values.empty()) throw Unsuitable("objective=blocks: samples that are sequences cannot be trained on");
      Chunk chunk{.batch = batch, .inputs = {}, .exact = {}, .rounded = {}};
      for (std::size_t i = 0; i < required.size(); ++i) chunk.inputs[required[i]->name()] = batch.inputs.at(i);
      samples_ += batch.samples;
      chunks_.push_back(std::move(chunk));
    }
    require(!chunks_.empty(), "there are no samples to train on");
  }

  // Those that are quantized: a layer that stays in float has no block of its own.
  std::vector<std::string> trained_weights() const {
    std::vector<std::string> names;
    for (const Value* value : model_.graph.initializers()) {
      const Value* twin = fake_.model->graph.find(value->name());
      const bool is_rounded = std::ranges::any_of(
          twin->uses(), [](const Use& use) { return use.node->is("FakeQuantize", "onnxpress.training"); });
      if (is_rounded && std::ranges::find(fake_.fixed, value->name()) == fake_.fixed.end())
        names.push_back(value->name());
    }
    return names;
  }

  // A float value whose leading axis counts samples.
  bool may_end(const Value& value) {
    if (&value.graph() != &model_.graph || value.producer() == nullptr) return false;
    const auto [known, is_new] = may_end_.emplace(value.name(), false);
    if (!is_new) return known->second;
    const std::unique_ptr<Model> part = cut_block(model_, "", {value.name()});
    Engine engine(*part, {.threads = context_.pool.size()});
    const Tensor seen = engine.run(inputs_of(*part, chunks_.front(), Tensor())).at(0);
    known->second =
        is_float(seen.dtype()) && seen.rank() > 0 && seen.dim(0) == chunks_.front().batch.inputs.at(0).dim(0);
    return known->second;
  }

  // The value that is read for a value of the model.
  const std::string& rounded(const std::string& name) const {
    const auto found = fake_.replaced.find(name);
    return found != fake_.replaced.end() ? found->second : name;
  }

  // What a block's model is given; `value` for its own input.
  static std::vector<Tensor> inputs_of(const Model& part, const Chunk& chunk, const Tensor& value) {
    std::vector<Tensor> inputs;
    for (const Value* input : part.required_inputs()) {
      const auto found = chunk.inputs.find(input->name());
      inputs.push_back(found != chunk.inputs.end() ? found->second : value);
    }
    return inputs;
  }

  Json train(const Block& block) {
    const std::unique_ptr<Model> exact = cut_block(model_, block.begin, block.ends);
    std::vector<std::string> ends;
    for (const std::string& end : block.ends) ends.push_back(rounded(end));
    const std::unique_ptr<Model> part =
        cut_block(*fake_.model, block.begin.empty() ? block.begin : rounded(block.begin), ends);
    std::vector<Batch> batches;
    Engine teacher(*exact, {.threads = context_.pool.size()});
    for (Chunk& chunk : chunks_) {
      std::vector<Tensor> wanted = teacher.run(inputs_of(*exact, chunk, chunk.exact));
      Batch batch{.inputs = inputs_of(*part, chunk, chunk.rounded), .samples = chunk.batch.samples};
      for (std::size_t i = 0; i < wanted.size(); ++i) batch.further[end_name(i)] = wanted[i];
      chunk.exact = std::move(wanted.front());
      batches.push_back(std::move(batch));
    }
    TrainingTask task{.loss_text = fmt::format("mse with the float model's '{}'", block.ends.front()),
                      .adjust = how_.adjust};
    for (std::size_t i = 0; i < ends.size(); ++i) {
      const double power = mean_square(batches, end_name(i));
      task.losses.push_back({.kind = LossTerm::Kind::mse, .output = ends[i], .weight = power > 0 ? 1 / power : 1});
      task.targets.push_back({.kind = TargetSource::Kind::further, .name = end_name(i)});
    }
    for (const std::string& name : how_.parameters)
      if (const Value* value = part->graph.find(name); value != nullptr && value->is_constant())
        task.parameters.push_back(name);
    for (const auto& [name, mask] : how_.masks)
      if (std::ranges::find(task.parameters, name) != task.parameters.end()) task.masks.emplace(name, mask);
    Json record{{"begin", block.begin}, {"end", block.ends.front()}, {"tensors", task.parameters.size()}};
    if (!task.parameters.empty()) {
      BlockData data(std::move(batches));
      fit(*part, task, data, record);
    }
    go_on(*part);
    return record;
  }

  void fit(Model& part, const TrainingTask& task, BlockData& data, Json& record) {
    PassContext inner = context_;
    inner.training = &data;
    TrainingReport trained = train_stage(part, task, options_, inner);
    for (const std::string& name : task.parameters)
      fake_.model->graph.set_initializer(fake_.model->graph.find(name), *part.graph.find(name)->constant());
    for (const char* key : {"held_out_loss", "loss"})
      if (trained.record["epochs"].size() > 0) {
        record[std::string("first_") + key] = trained.record["epochs"].front()[key];
        record[std::string("last_") + key] = trained.record["epochs"].back()[key];
      }
    report_.record = std::move(trained.record);
    report_.changed = report_.changed || trained.changed;
  }

  // The samples behind the block, as it is now.
  void go_on(const Model& part) {
    Engine engine(part, {.threads = context_.pool.size()});
    for (Chunk& chunk : chunks_) chunk.rounded = engine.run(inputs_of(part, chunk, chunk.rounded)).front();
  }

  const Model& model_;
  FakeQuantized& fake_;
  const BlockTraining& how_;
  const Options& options_;
  PassContext& context_;
  std::vector<Chunk> chunks_;
  std::int64_t samples_ = 0;
  std::map<std::string, bool> may_end_;
  TrainingReport report_;
};

}  // namespace

TrainingReport train_blocks(const Model& model, FakeQuantized& fake, const BlockTraining& how, const Options& options,
                            PassContext& context) {
  return BlockTrainer(model, fake, how, options, context).run();
}

}  // namespace onnxpress
