#include "passes/train/teacher_targets.h"

#include <algorithm>
#include <utility>

#include "graph/exec/losses.h"
#include "graph/ops/pieces.h"
#include "graph/rewrite/inline.h"
#include "graph/rewrite/pattern.h"

namespace onnxpress {
namespace {

// Means over boxes that divide each axis behind the channels evenly (adaptive average pooling).
Tensor averaged(const Tensor& maps, const Dims& positions) {
  Tensor current = maps.cast(DType::float32);
  for (std::size_t axis = 2; axis < current.rank(); ++axis) {
    const std::int64_t size = current.dim(axis), wanted = positions[axis - 2];
    if (size == wanted) continue;
    Dims dims = current.dims();
    const std::span<const std::int64_t> all = current.dims();
    const std::int64_t outer = element_count(all.first(axis)), inner = element_count(all.subspan(axis + 1));
    dims[axis] = wanted;
    Tensor next(DType::float32, dims);
    const auto from = current.data<float>();
    const auto to = next.mutable_data<float>();
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t t = 0; t < wanted; ++t) {
        const std::int64_t begin = t * size / wanted, end = ((t + 1) * size + wanted - 1) / wanted;
        for (std::int64_t i = 0; i < inner; ++i) {
          double sum = 0;
          for (std::int64_t s = begin; s < end; ++s)
            sum += double{from[static_cast<std::size_t>((o * size + s) * inner + i)]};
          to[static_cast<std::size_t>((o * wanted + t) * inner + i)] =
              static_cast<float>(sum / static_cast<double>(end - begin));
        }
      }
    current = std::move(next);
  }
  return current;
}

std::string key_of(const TeacherSource& teacher, const std::vector<TeacherValue>& values, const Dataset& training) {
  Hasher hasher;
  hasher.add(training.hash()).add(structural_hash(*teacher.model, true)).add(teacher.preprocessing);
  for (const TeacherValue& value : values) {
    hasher.add(value.name).add(std::int64_t{value.as_logits}).add(std::int64_t{value.as_probabilities});
    for (const std::int64_t size : value.positions.value_or(Dims{})) hasher.add(size);
    hasher.add(std::int64_t{-1});
  }
  return hasher.finish().hex();
}

}  // namespace

TeacherTargets::TeacherTargets(const TeacherSource& teacher, std::vector<TeacherValue> values, Dataset& training,
                               const TeacherTargetOptions& options, PassContext& context)
    : name_(teacher.name),
      values_(std::move(values)),
      training_(training),
      own_data_(teacher.data),
      student_inputs_(options.student_inputs),
      key_(key_of(teacher, values_, training)) {
  const std::int64_t samples = training.samples();
  if (options.samples_change) {
    if (!options.cache.empty())
      throw Unsuitable("--teacher-cache: augmentation gives other samples in every epoch, which no cache can hold");
    if (teacher.reads_otherwise)
      throw Unsuitable(
          fmt::format("augmentation changes what the student reads, and teacher '{}' has preprocessing of its "
                      "own ({}): expected the same for both",
                      name_, teacher.preprocessing));
    own_data_ = nullptr;
  }
  if (own_data_ != nullptr && own_data_->samples() != samples)
    throw Unsuitable(
        fmt::format("teacher '{}': expected {} samples, found {}", name_, samples, own_data_->samples()));
  std::filesystem::path file = options.cache;
  if (!file.empty()) {
    if (training.hash().empty())
      throw Unsuitable("--teacher-cache: expected data from files, found generated samples");
    if (std::filesystem::is_directory(file)) file /= fmt::format("teacher-{}.samples", key_);
    FoundSamples found = SampleStore::open(file, key_);
    store_ = std::move(found.store);
    if (!found.reason.empty()) renewed_ = fmt::format("; '{}' was not used: {}", file.native(), found.reason);
  }
  if (store_) {
    for (const SampleStore::Column& column : store_->columns()) rows_.push_back(column.row);
    note_ =
        fmt::format("teacher '{}': what it makes of {} samples was read from '{}'", name_, samples, file.native());
    return;
  }
  prepare(*teacher.model, context.pool.size());
  Batch first;
  data().rewind();
  require(data().next(first), "there are no samples to train on");
  std::size_t bytes = 0;
  for (const Tensor& result : run(first, own_data_ == nullptr)) {
    rows_.emplace_back(result.dims().begin() + 1, result.dims().end());
    bytes += result.byte_size() / static_cast<std::size_t>(std::max<std::int64_t>(result.dim(0), 1));
  }
  const bool fits = bytes == 0 || static_cast<std::size_t>(samples) <= options.most_bytes / bytes;
  if (!options.samples_change && (fits || !file.empty())) {
    keep(file, context, options.most_bytes);
    return;
  }
  if (!options.samples_change && own_data_ != nullptr)
    throw Unsuitable(
        fmt::format("teacher '{}' has data of its own, and {} bytes a sample of {} do not fit into memory: give "
                    "--teacher-cache",
                    name_, bytes, samples));
  note_ = fmt::format("teacher '{}' runs on every batch", name_);
}

// A clone whose outputs are the wanted values.
void TeacherTargets::prepare(const Model& source, int threads) {
  in_context([&] { return fmt::format("teacher '{}'", name_); },
             [&] {
               const std::unique_ptr<Model> model = source.clone();
               inline_functions(*model);
               Graph& graph = model->graph;
               std::vector<Value*> wanted;
               for (const TeacherValue& value : values_) {
                 Value* found = graph.find(value.name);
                 if (found == nullptr) throw Unsuitable(fmt::format("expected a value '{}', found none", value.name));
                 if (value.as_probabilities && logits_of(found) == found)
                   found = graph.add_node({.op_type = "Sigmoid", .inputs = {found}})->output();
                 wanted.push_back(value.as_logits ? logits_of(found) : found);
               }
               while (!graph.outputs().empty()) graph.remove_output(0);
               for (Value* value : wanted) {
                 if (!value->is_output()) graph.add_output(value);
                 const auto outputs = graph.outputs();
                 places_.push_back(static_cast<std::size_t>(std::ranges::find(outputs, value) - outputs.begin()));
               }
               remove_unused(graph);
               for (const Value* input : model->required_inputs()) inputs_.push_back(input->name());
               engine_ = std::make_unique<Engine>(*model, EngineOptions{.threads = threads});
             });
}

// The student's inputs as the teacher reads them: by name, else by position.
std::vector<Tensor> TeacherTargets::adopted(const std::vector<Tensor>& given) const {
  if (given.size() != inputs_.size())
    throw Unsuitable(fmt::format("expected {} inputs, found {} of the student", inputs_.size(), given.size()));
  const auto place = [&](const std::string& input) {
    return static_cast<std::size_t>(std::ranges::find(student_inputs_, input) - student_inputs_.begin());
  };
  const bool by_name =
      std::ranges::all_of(inputs_, [&](const std::string& input) { return place(input) < student_inputs_.size(); });
  if (!by_name) return given;
  std::vector<Tensor> ordered;
  for (const std::string& input : inputs_) ordered.push_back(given.at(place(input)));
  return ordered;
}

std::vector<Tensor> TeacherTargets::run(const Batch& batch, bool is_students) {
  return in_context([&] { return fmt::format("running the teacher '{}'", name_); },
                    [&] {
                      const std::vector<Tensor> outputs =
                          engine_->run(is_students ? adopted(batch.inputs) : batch.inputs);
                      std::vector<Tensor> results;
                      for (std::size_t i = 0; i < values_.size(); ++i) {
                        Tensor result = outputs[places_[i]];
                        require(result.rank() > 0 && result.dim(0) >= batch.samples,
                                "'{}': expected one row a sample ({}), found {}", values_[i].name, batch.samples,
                                to_string(result.dims()));
                        if (result.dim(0) > batch.samples) result = take(result, 0, 0, batch.samples);
                        if (values_[i].positions && result.rank() == values_[i].positions->size() + 2)
                          result = averaged(result, *values_[i].positions);
                        results.push_back(std::move(result));
                      }
                      return results;
                    });
}

void TeacherTargets::keep(const std::filesystem::path& file, PassContext& context, std::size_t most_bytes) {
  std::vector<std::string> names;
  for (const TeacherValue& value : values_) names.push_back(value.name);
  const auto samples = static_cast<std::size_t>(training_.samples());
  std::size_t done = 0;
  data().rewind();
  const auto next = [&]() -> std::vector<Tensor> {
    Batch batch;
    if (!data().next(batch)) return {};
    std::vector<Tensor> results = run(batch, own_data_ == nullptr);
    done += static_cast<std::size_t>(batch.samples);
    if (context.progress) context.progress("running the teacher", done, samples);
    return results;
  };
  store_ = SampleStore::record(names, training_.samples(), next, key_, file, most_bytes);
  data().rewind();
  engine_.reset();
  note_ = fmt::format("teacher '{}' ran once on {} samples: {} bytes kept in {}{}", name_, samples,
                      store_->record_bytes() * samples, file.empty() ? "memory" : fmt::format("'{}'", file.native()),
                      renewed_);
}

std::vector<Tensor> TeacherTargets::targets(const Batch& batch, const BatchPlace& place) {
  std::vector<Tensor> results;
  if (!store_) {
    Batch all = batch;
    all.samples = std::ssize(place.samples);
    return run(all, true);
  }
  for (std::size_t i = 0; i < values_.size(); ++i) results.push_back(store_->gather(i, place.samples));
  return results;
}

}  // namespace onnxpress
