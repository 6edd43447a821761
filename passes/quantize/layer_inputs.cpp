#include "passes/quantize/layer_inputs.h"

#include <algorithm>
#include <unordered_map>

#include "graph/base/random.h"
#include "graph/exec/engine.h"
#include "graph/kernels/onednn_threads.h"

namespace onnxpress {
namespace {

constexpr std::size_t most_kept_bytes = std::size_t{96} << 20;
constexpr std::size_t most_chunk_bytes = std::size_t{16} << 20, most_chunk_batches = 16;
constexpr std::size_t most_copied_bytes = std::size_t{128} << 20;
constexpr std::int64_t most_blocks = 4;  // a layer that runs often in one batch gives so many times its share

std::size_t bytes_of(const Batch& batch) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : batch.inputs) bytes += tensor.byte_size();
  return bytes;
}

// Weights are laid out anew by every engine.
std::size_t constant_bytes(const Model& model) {
  std::size_t bytes = 0;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (const Value* value : graph.initializers())
      if (value->initializer()->tensor.defined()) bytes += value->initializer()->tensor.byte_size();
  });
  return bytes;
}

// Everything a graph defines, in an order that clones share.
std::vector<const Value*> values_of(const Model& model) {
  std::vector<const Value*> values;
  model.graph.for_each_graph([&](const Graph& graph) {
    for (const Value* input : graph.inputs()) values.push_back(input);
    for (const Node* node : graph.nodes())
      for (const Value* output : node->outputs()) values.push_back(output);
  });
  return values;
}

// The model without the parts that none of `sources` depends on. Those in subgraphs keep the operator
// around them.
std::unique_ptr<Model> prefix_of(const Model& model, const std::vector<std::size_t>& sources) {
  std::unique_ptr<Model> prefix = model.clone();
  Graph& graph = prefix->graph;
  const std::vector<const Value*> values = values_of(*prefix);
  std::vector<Value*> wanted;
  for (const std::size_t source : sources) {
    const Value* value = values[source];
    if (&value->graph() == &graph && !value->producer()) continue;  // an input is always there
    Node* node = value->producer() ? value->producer() : value->graph().owner();
    Node* holder = graph.holder(node);
    Value* output = holder == value->producer() ? holder->output(value->output_index()) : nullptr;
    for (std::size_t i = 0; !output && i < holder->output_count(); ++i) output = holder->output(i);
    if (output && std::ranges::find(wanted, output) == wanted.end()) wanted.push_back(output);
  }
  if (wanted.empty()) return prefix;
  for (std::size_t i = graph.outputs().size(); i-- > 0;) graph.remove_output(i);
  for (Value* output : wanted) graph.add_output(output);
  return prefix;
}

// Columns that one tensor gave: [groups, count, depth].
struct Piece {
  std::int64_t count = 0;
  std::vector<float> values;
};

// The same of several tensors, one behind the other by group.
Piece joined(const WeightMatrix& matrix, std::span<const Piece* const> pieces) {
  Piece all;
  for (const Piece* piece : pieces) all.count += piece->count;
  all.values.reserve(static_cast<std::size_t>(all.count * matrix.groups * matrix.depth));
  for (std::int64_t group = 0; group < matrix.groups; ++group)
    for (const Piece* piece : pieces) {
      const auto begin = piece->values.begin() + group * piece->count * matrix.depth;
      all.values.insert(all.values.end(), begin, begin + piece->count * matrix.depth);
    }
  return all;
}

// The columns of one batch, layer by layer, at positions that depend on the batch alone.
class ColumnObserver final : public Observer {
 public:
  ColumnObserver(const Model& model, const std::vector<ColumnRequest>& layers,
                 const std::vector<std::vector<std::size_t>>& sources, std::uint64_t seed)
      : layers_(layers), seed_(seed), blocks_(layers.size()) {
    const std::vector<const Value*> values = values_of(model);
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
      for (std::size_t i = 0; i < sources[layer].size(); ++i)
        readers_[values[sources[layer][i]]].push_back({layer, layers[layer].readers[i]});
  }

  void start(std::int64_t batch, double share) {
    batch_ = batch;
    share_ = share;
    for (Block& block : blocks_) block = {};
  }

  bool wants(const Value& value) override { return readers_.contains(&value); }

  void observe(const Value& value, const Tensor& tensor) override {
    const Tensor wide = tensor.cast(DType::float32);
    for (const auto& [layer, reader] : readers_.at(&value)) read(layer, *reader, wide);
  }

  const std::vector<Piece>& pieces(std::size_t layer) const { return blocks_[layer].pieces; }

 private:
  struct Block {
    std::int64_t seen = 0;  // observations
    std::int64_t count = 0;
    std::vector<Piece> pieces;
  };
  struct Read {
    std::size_t layer;
    const ColumnReader* reader;
  };

  void read(std::size_t layer, const ColumnReader& reader, const Tensor& tensor) {
    Block& block = blocks_[layer];
    const auto quota =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(layers_[layer].most) * share_ + 0.5));
    const std::int64_t available = reader.count(tensor.dims());
    const std::int64_t taken = std::min({available, quota, most_blocks * quota - block.count});
    Random random = Random(seed_)
                        .split(static_cast<std::uint64_t>(batch_))
                        .split(layer)
                        .split(static_cast<std::uint64_t>(block.seen++));
    if (taken <= 0) return;
    std::vector<std::int64_t> which(static_cast<std::size_t>(taken));
    for (std::int64_t i = 0; i < taken; ++i) {  // one of every `taken`-th part
      const std::int64_t begin = i * available / taken, end = (i + 1) * available / taken;
      which[static_cast<std::size_t>(i)] =
          begin + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(end - begin)));
    }
    const WeightMatrix& matrix = reader.matrix();
    Piece piece{taken, std::vector<float>(static_cast<std::size_t>(matrix.groups * taken * matrix.depth))};
    for (std::int64_t group = 0; group < matrix.groups; ++group)
      reader.read(tensor.data<float>(), tensor.dims(), group, which,
                  piece.values.data() + group * taken * matrix.depth);
    block.count += taken;
    block.pieces.push_back(std::move(piece));
  }

  const std::vector<ColumnRequest>& layers_;
  std::uint64_t seed_;
  std::unordered_map<const Value*, std::vector<Read>> readers_;
  std::int64_t batch_ = 0;
  double share_ = 1;
  std::vector<Block> blocks_;
};

// A model's prefix, its engine and its observer.
class Run {
 public:
  Run(const Model& model, const std::vector<ColumnRequest>& layers,
      const std::vector<std::vector<std::size_t>>& sources, const std::vector<std::size_t>& all_sources,
      int threads, std::uint64_t seed)
      : engine_(*prefix_of(model, all_sources), {.threads = threads}), observer_(engine_.model(), layers, sources, seed) {}

  const ColumnObserver& run(const Batch& batch, std::int64_t number, double share) {
    observer_.start(number, share);
    if (batch.values.empty())
      engine_.run(batch.inputs, &observer_);
    else
      engine_.run(batch.values, &observer_);
    return observer_;
  }

 private:
  Engine engine_;
  ColumnObserver observer_;
};

// Columns of one layer in one batch.
struct Columns {
  Piece exact, rounded;
};

// What one worker runs.
struct Runs {
  std::unique_ptr<Run> exact, rounded;

  // By layer.
  std::vector<Columns> columns(const Batch& batch, std::int64_t number, double share,
                               const std::vector<ColumnRequest>& layers) {
    const ColumnObserver& before = exact->run(batch, number, share);
    const ColumnObserver* after = rounded ? &rounded->run(batch, number, share) : nullptr;
    std::vector<Columns> all(layers.size());
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      std::vector<const Piece*> pieces, pairs;
      const std::vector<Piece>& given = before.pieces(layer);
      for (std::size_t i = 0; i < given.size(); ++i) {
        // Control flow may have run another number of times, on tensors of other sizes.
        if (after && (i >= after->pieces(layer).size() || after->pieces(layer)[i].count != given[i].count)) break;
        pieces.push_back(&given[i]);
        if (after) pairs.push_back(&after->pieces(layer)[i]);
      }
      const WeightMatrix& matrix = layers[layer].readers[0]->matrix();
      all[layer].exact = joined(matrix, pieces);
      if (after) all[layer].rounded = joined(matrix, pairs);
    }
    return all;
  }
};

}  // namespace

CalibrationSubset::CalibrationSubset(Dataset& data, std::int64_t samples)
    : data_(data), samples_(std::min(samples, data.samples())) {
  require(data.samples() > 0, "calibration data: expected at least one sample, found none");
}

// Spread evenly: the share taken so far never runs ahead of the share seen.
bool CalibrationSubset::takes(std::int64_t seen, std::int64_t used) const {
  return static_cast<double>(used) * static_cast<double>(data_.samples()) <=
         static_cast<double>(seen) * static_cast<double>(samples_);
}

void CalibrationSubset::for_each_chunk(const std::function<void(std::span<const Batch>)>& fn) {
  if (kept_all_) {
    for (const std::vector<Batch>& chunk : kept_) fn(chunk);
    return;
  }
  std::int64_t seen = 0, used = 0;
  std::size_t bytes = 0, chunk_bytes = 0;
  kept_.clear();
  std::vector<Batch> chunk;
  const auto end_chunk = [&] {
    fn(chunk);
    if (may_keep_) kept_.push_back(std::move(chunk));
    chunk.clear();
    chunk_bytes = 0;
  };
  Batch batch;
  for (data_.rewind(); used < samples_ && data_.next(batch); seen += batch.samples) {
    if (!takes(seen, used)) continue;
    used += batch.samples;
    chunk_bytes += bytes_of(batch);
    bytes += bytes_of(batch);
    may_keep_ = may_keep_ && bytes <= most_kept_bytes && batch.values.empty();
    if (!may_keep_) kept_.clear();
    chunk.push_back(batch);
    if (chunk.size() >= most_chunk_batches || (chunk.size() > 1 && chunk_bytes >= most_chunk_bytes)) end_chunk();
  }
  if (!chunk.empty()) end_chunk();
  kept_all_ = may_keep_;
}

void stream_columns(const Model& model, const Model* rounded, const std::vector<ColumnRequest>& layers,
                    CalibrationSubset& data, PassContext& context,
                    const std::function<void(std::size_t layer, const ColumnBlock& block)>& take) {
  const std::vector<const Value*> values = values_of(model);
  std::unordered_map<const Value*, std::size_t> index;
  for (std::size_t i = 0; i < values.size(); ++i) index[values[i]] = i;
  std::vector<std::vector<std::size_t>> sources;
  std::vector<std::size_t> all_sources;
  for (const ColumnRequest& layer : layers) {
    sources.emplace_back();
    for (const ColumnReader* reader : layer.readers) {
      const std::size_t source = index.at(&reader->source());
      sources.back().push_back(source);
      all_sources.push_back(source);
    }
  }
  // One engine (two, with `rounded`) of one thread for each worker: what a batch gives does not depend on
  // how many there are. Large models are run by one engine of all threads.
  const bool side_by_side = constant_bytes(model) <= most_copied_bytes;
  const int workers = side_by_side ? context.pool.size() : 1;
  const int threads = side_by_side ? 1 : context.pool.size();
  ThreadPool pool(workers);
  std::vector<Runs> runs(static_cast<std::size_t>(workers));
  std::int64_t number = 0;
  data.for_each_chunk([&](std::span<const Batch> batches) {
    std::vector<std::vector<Columns>> columns(batches.size());
    pool.parallel_for(std::ssize(batches), 1, [&](std::int64_t begin, std::int64_t) {
      const auto i = static_cast<std::size_t>(begin);
      Runs& mine = runs[static_cast<std::size_t>(ThreadPool::worker_index())];
      if (!mine.exact) {
        mine.exact = std::make_unique<Run>(model, layers, sources, all_sources, threads, context.seed);
        if (rounded) mine.rounded = std::make_unique<Run>(*rounded, layers, sources, all_sources, threads, context.seed);
      }
      const double share = static_cast<double>(batches[i].samples) / static_cast<double>(data.samples());
      columns[i] = mine.columns(batches[i], number + begin, share, layers);
    });
    number += std::ssize(batches);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      const WeightMatrix& matrix = layers[layer].readers[0]->matrix();
      std::vector<const Piece*> exact, behind;
      for (const std::vector<Columns>& batch : columns) {
        exact.push_back(&batch[layer].exact);
        behind.push_back(&batch[layer].rounded);
      }
      const Piece before = joined(matrix, exact), after = joined(matrix, behind);
      if (before.count == 0) continue;
      const ColumnBlock block{before.count, before.values, rounded ? after.values : before.values};
      take(layer, block);
    }
  });
  set_onednn_threads(context.pool.size());
}

}  // namespace onnxpress
