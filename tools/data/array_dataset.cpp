// Arrays bound to a model's inputs: matching, batching, preprocessing.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "graph/base/error.h"
#include "tools/data/data.h"

namespace onnxpress {

namespace {

constexpr std::int64_t default_batch = 32;
constexpr std::size_t batch_memory = std::size_t{64} << 20;  // bounds the default batch

// An input, the array that feeds it and how.
struct Binding {
  InputSpec input;
  std::unique_ptr<ArrayReader> reader;
  std::size_t axis = 0;      // counts samples
  bool every_batch = false;  // the whole array goes to every batch
  Tensor whole;              // every_batch, or axis > 0: such arrays cannot be streamed
  Dims dims;                 // of the array, row axes as the model has them
  std::vector<double> mean, std;
};

std::string list_names(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names)
    text += fmt::format("{}'{}'", text.empty() ? "" : ", ", name);
  return text;
}

// Where `dims` contradict `shape`, the axis `skip` aside.
bool fits(const Dims& dims, const Shape& shape, std::optional<std::size_t> skip) {
  if (dims.size() != shape.size()) return false;
  for (std::size_t axis = 0; axis < dims.size(); ++axis)
    if (axis != skip && shape[axis].is_known() && shape[axis].value() != dims[axis]) return false;
  return true;
}

// The row dims that a format without channel axes may take: as declared, if the sizes agree.
std::optional<Dims> reshaped_rows(const Dims& dims, const Shape& shape) {
  if (dims.empty() || shape.empty()) return std::nullopt;
  Dims result{dims[0]};
  for (std::size_t axis = 1; axis < shape.size(); ++axis) {
    if (!shape[axis].is_known()) return std::nullopt;
    result.push_back(shape[axis].value());
  }
  if (element_count(std::span(result).subspan(1)) != element_count(std::span(dims).subspan(1)))
    return std::nullopt;
  return result;
}

// The axis of channels for per-channel mean and std.
std::size_t channel_axis(const Binding& binding, std::size_t count,
                         const std::optional<ImageLayout>& layout) {
  const std::size_t rank = binding.dims.size();
  require(rank >= 2, "input '{}' has no channel axis for {} values of --input-mean or --input-std",
          binding.input.name, count);
  const auto wanted = static_cast<std::int64_t>(count);
  std::size_t axis = layout == ImageLayout::nhwc ? rank - 1 : 1;
  if (!layout && binding.dims[1] != wanted && binding.dims[rank - 1] == wanted) axis = rank - 1;
  require(binding.dims[axis] == wanted,
          "input '{}' {}: {} values of --input-mean or --input-std for {} channels",
          binding.input.name, to_string(binding.dims), count, binding.dims[axis]);
  return axis;
}

class ArrayDataset : public Dataset {
 public:
  ArrayDataset(DataSource source, std::vector<InputSpec> inputs, const DataOptions& options)
      : path_(std::move(source.path)), options_(options), labels_(std::move(source.labels)) {
    match(std::move(source.arrays), std::move(inputs));
    for (Binding& binding : bindings_) check_type(binding);
    count_samples(source.reshape_rows);
    std::erase_if(further_, [this](const auto& reader) {
      const Dims& dims = reader->info().dims;
      return dims.empty() || dims[0] != samples_ || reader->info().dtype == DType::string;
    });
    choose_batch();
    rewind();
  }

  std::int64_t samples() const override { return samples_; }
  bool labelled() const override { return labels_ != nullptr; }
  std::string description() const override {
    return fmt::format("{} ({} samples)",
                       (path_.has_filename() ? path_ : path_.parent_path()).filename().string(),
                       samples_);
  }
  std::string hash() const override { return hash_of_data(path_); }
  std::vector<std::string> notes() const override {
    std::vector<std::string> notes;
    for (const Binding& binding : bindings_)
      if (auto note = rounding_note(binding.input, binding.reader->info().dtype))
        notes.push_back(std::move(*note));
    return notes;
  }

  void rewind() override {
    position_ = 0;
    for (Binding& binding : bindings_)
      if (!binding.whole.defined()) binding.reader->rewind();
    if (labels_) labels_->rewind();
    for (const auto& reader : further_) reader->rewind();
  }

  bool next(Batch& batch) override {
    if (position_ == samples_) return false;
    batch.samples = std::min(batch_, samples_ - position_);
    batch.inputs.clear();
    batch.further.clear();
    for (Binding& binding : bindings_)
      batch.inputs.push_back(in_context(
          [&] {
            return fmt::format("samples {} to {} of '{}'", position_, position_ + batch.samples - 1,
                               path_.string());
          },
          [&] { return rows(binding, batch.samples); }));
    batch.labels = labels_ ? label_rows(*labels_, batch.samples) : Tensor();
    for (const auto& reader : further_) batch.further[reader->info().name] = label_rows(*reader, batch.samples);
    position_ += batch.samples;
    return true;
  }

 private:
  void match(std::vector<std::unique_ptr<ArrayReader>> arrays, std::vector<InputSpec> inputs) {
    std::vector<std::string> found, missing;
    for (const auto& array : arrays) found.push_back(array->info().name);
    for (const InputSpec& input : inputs)
      if (std::find(found.begin(), found.end(), input.name) == found.end())
        missing.push_back(input.name);
    const bool by_name = missing.size() < inputs.size();
    if (!by_name && arrays.size() > inputs.size()) set_lengths_aside(arrays, found);
    require(!by_name || missing.empty(), "no array for input {} (arrays: {})", list_names(missing),
            list_names(found));
    if (!by_name) {
      std::vector<std::string> wanted;
      for (const InputSpec& input : inputs) wanted.push_back(input.name);
      require(
          arrays.size() == inputs.size(),
          "no array has the name of an input, and by position {} array{} ({}) cannot be matched "
          "to {} input{} ({})",
          arrays.size(), arrays.size() == 1 ? "" : "s", list_names(found), inputs.size(),
          inputs.size() == 1 ? "" : "s", list_names(wanted));
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      std::size_t at = i;
      if (by_name)
        at = static_cast<std::size_t>(std::find(found.begin(), found.end(), inputs[i].name) -
                                      found.begin());
      Binding binding;
      binding.input = std::move(inputs[i]);
      binding.reader = std::move(arrays[at]);
      binding.dims = binding.reader->info().dims;
      if (const auto axis = options_.batch_axis.find(binding.input.name);
          axis != options_.batch_axis.end())
        binding.axis = axis->second;
      bindings_.push_back(std::move(binding));
    }
    if (!options_.keeps_further) return;
    for (auto& array : arrays)
      if (array) further_.push_back(std::move(array));
  }

  // Lengths of sequences are no inputs by position.
  void set_lengths_aside(std::vector<std::unique_ptr<ArrayReader>>& arrays, std::vector<std::string>& found) {
    found.clear();
    std::vector<std::unique_ptr<ArrayReader>> rest;
    for (auto& array : arrays) {
      const std::string& name = array->info().name;
      const bool is_length = name == "x_len" || name == "y_len";
      if (!is_length) found.push_back(name);
      if (!is_length)
        rest.push_back(std::move(array));
      else if (options_.keeps_further)
        further_.push_back(std::move(array));
    }
    arrays = std::move(rest);
  }

  // Floating-point types feed each other; integers feed float inputs only with preprocessing said
  // by the user.
  void check_type(const Binding& binding) const {
    const DType wanted = binding.input.dtype, found = binding.reader->info().dtype;
    if (wanted == found || (is_float(wanted) && is_float(found))) return;
    const bool from_integer = is_integer(found) || found == DType::boolean;
    if (is_float(wanted) && from_integer && options_.converts_integers()) return;
    std::string hint;
    if (is_float(wanted) && found == DType::uint8)
      hint = ": give --input-scale 1/255 to convert";
    else if (is_float(wanted) && from_integer)
      hint = ": give --input-scale 1 to convert";
    fail("input '{}' expects {}, data has {}{}", binding.input.name, name(wanted), name(found),
         hint);
  }

  void count_samples(bool reshape) {
    for (Binding& binding : bindings_)
      if (reshape && !fits(binding.dims, binding.input.shape, 0))
        if (auto dims = reshaped_rows(binding.dims, binding.input.shape)) binding.dims = *dims;
    const auto full = [](const Binding& binding) {
      return concrete(binding.input.shape) == binding.dims;
    };
    const auto counted = [](const Binding& binding) {
      return !binding.dims.empty() && fits(binding.dims, binding.input.shape, binding.axis);
    };
    if (labels_) {
      require(!labels_->info().dims.empty(), "labels: expected an axis of samples, found a scalar");
      samples_ = labels_->info().dims[0];
    } else {
      const Binding* first = nullptr;
      for (const Binding& binding : bindings_)
        if (counted(binding) && (!first || (full(*first) && !full(binding)))) first = &binding;
      samples_ = first ? first->dims[first->axis] : 1;
    }
    for (Binding& binding : bindings_) {
      if (counted(binding) && binding.dims[binding.axis] == samples_) continue;
      binding.every_batch = full(binding);
      if (binding.every_batch) continue;
      Shape expected = binding.input.shape;
      if (!expected.empty()) expected[binding.axis] = Dim("samples");
      require(counted(binding), "input '{}' expects shape {}, data has {}", binding.input.name,
              to_string(expected), to_string(binding.dims));
      if (labels_)
        fail("different sample counts: input '{}' has {}, the labels array has {}",
             binding.input.name, binding.dims[binding.axis], samples_);
      fail("different sample counts: input '{}' has {} along axis {}, another input has {} "
           "(--batch-axis {}=N counts along another axis)",
           binding.input.name, binding.dims[binding.axis], binding.axis, samples_,
           binding.input.name);
    }
    require(samples_ > 0, "no samples");
  }

  void choose_batch() {
    const Binding* fixed = nullptr;
    std::size_t row_bytes = 1;
    for (Binding& binding : bindings_) {
      prepare(binding);
      if (binding.every_batch) continue;
      row_bytes += binding.reader->info().dims.empty()
                       ? 0
                       : static_cast<std::size_t>(element_count(binding.dims) / samples_) *
                             static_cast<std::size_t>(std::max(bits(binding.input.dtype), 8)) / 8;
      const Dim& dim = binding.input.shape[binding.axis];
      if (!dim.is_known()) continue;
      require(!fixed || fixed->input.shape[fixed->axis] == dim,
              "inputs of different batch sizes: '{}' has {}, '{}' has {}",
              fixed ? fixed->input.name : "",
              fixed ? fixed->input.shape[fixed->axis].to_string() : "", binding.input.name,
              dim.to_string());
      fixed = &binding;
    }
    if (fixed) {
      batch_ = fixed->input.shape[fixed->axis].value();
      require(batch_ > 0, "input '{}' has a batch of size 0", fixed->input.name);
      require(options_.batch == 0 || options_.batch == batch_,
              "--batch {}: input '{}' has a fixed batch of {}", options_.batch, fixed->input.name,
              batch_);
      pad_ = true;
      return;
    }
    const auto affordable = static_cast<std::int64_t>(batch_memory / row_bytes);
    batch_ = options_.batch > 0 ? options_.batch
                                : std::clamp<std::int64_t>(affordable, 1, default_batch);
  }

  // Loads what cannot be streamed, and spreads mean and std over the channels.
  void prepare(Binding& binding) {
    if (binding.every_batch || binding.axis > 0) {
      binding.whole = Tensor::uninitialized(binding.reader->info().dtype, binding.dims);
      binding.reader->rewind();
      binding.reader->read(binding.whole.mutable_bytes());
    }
    if (!is_float(binding.input.dtype)) return;
    binding.mean = options_.mean;
    binding.std = options_.std;
    for (std::vector<double>* values : {&binding.mean, &binding.std})
      if (values->size() > 1) channel_axis(binding, values->size(), options_.layout);
  }

  // The next `count` rows for an input, padded to a fixed batch by repeating the last one.
  Tensor rows(Binding& binding, std::int64_t count) {
    if (binding.every_batch) return preprocess(binding, binding.whole);
    const std::int64_t padded = pad_ ? batch_ : count;
    Dims dims = binding.dims;
    dims[binding.axis] = padded;
    Tensor tensor = Tensor::uninitialized(binding.reader->info().dtype, dims);
    const auto outer = static_cast<std::size_t>(element_count(std::span(dims).first(binding.axis)));
    if (element_count(dims) == 0) return preprocess(binding, tensor);
    const std::span<std::byte> target = tensor.mutable_bytes();
    const std::size_t row = target.size() / outer / static_cast<std::size_t>(padded);
    const std::size_t wanted = row * static_cast<std::size_t>(count);
    for (std::size_t i = 0; i < outer; ++i) {
      const auto block = target.subspan(i * row * static_cast<std::size_t>(padded));
      if (binding.whole.defined()) {
        const auto from =
            (i * static_cast<std::size_t>(samples_) + static_cast<std::size_t>(position_)) * row;
        std::memcpy(block.data(), binding.whole.bytes().data() + from, wanted);
      } else {
        binding.reader->read(block.first(wanted));
      }
      for (std::int64_t k = count; k < padded; ++k)
        std::memcpy(block.data() + static_cast<std::size_t>(k) * row, block.data() + wanted - row,
                    row);
    }
    return preprocess(binding, tensor);
  }

  Tensor preprocess(const Binding& binding, const Tensor& raw) const {
    if (!is_float(binding.input.dtype)) return raw;
    if (!options_.scale && binding.mean.empty() && binding.std.empty())
      return raw.cast(binding.input.dtype);
    Tensor tensor = raw.cast(DType::float32);
    const std::span<float> values = tensor.mutable_data<float>();
    const std::size_t channels =
        std::max({binding.mean.size(), binding.std.size(), std::size_t{1}});
    std::size_t inner = 1;
    if (channels > 1) {
      const std::size_t axis = channel_axis(binding, channels, options_.layout);
      inner = static_cast<std::size_t>(element_count(std::span(tensor.dims()).subspan(axis + 1)));
    }
    const auto of = [](const std::vector<double>& list, std::size_t channel, double otherwise) {
      return list.empty() ? otherwise : list[list.size() == 1 ? 0 : channel];
    };
    const double scale = options_.scale.value_or(1.0);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t channel = i / inner % channels;
      values[i] = static_cast<float>((values[i] * scale - of(binding.mean, channel, 0.0)) /
                                     of(binding.std, channel, 1.0));
    }
    return tensor.cast(binding.input.dtype);
  }

  // Class numbers as int64 (uint64 may not fit: whoever reads them says so), targets as float32.
  static Tensor label_rows(ArrayReader& reader, std::int64_t count) {
    Dims dims = reader.info().dims;
    dims[0] = count;
    Tensor tensor = Tensor::uninitialized(reader.info().dtype, dims);
    reader.read(tensor.mutable_bytes());
    if (tensor.dtype() == DType::uint64) return tensor;
    return tensor.cast(is_float(tensor.dtype()) ? DType::float32 : DType::int64);
  }

  std::filesystem::path path_;
  DataOptions options_;
  std::unique_ptr<ArrayReader> labels_;
  std::vector<std::unique_ptr<ArrayReader>> further_;
  std::vector<Binding> bindings_;
  std::int64_t samples_ = 0, batch_ = 1, position_ = 0;
  bool pad_ = false;
};

}  // namespace

std::unique_ptr<Dataset> bind_arrays(DataSource source, std::vector<InputSpec> inputs,
                                     const DataOptions& options) {
  return std::make_unique<ArrayDataset>(std::move(source), std::move(inputs), options);
}

}  // namespace onnxpress
