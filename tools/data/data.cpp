#include "tools/data/data.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>

#include "graph/base/error.h"
#include "tools/data/idx.h"
#include "tools/data/npy.h"
#include "tools/data/npz.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

enum class FileKind { npz, npy, idx, unknown };

FileKind kind_of(const fs::path& path) {
  std::array<char, 6> start{};
  std::ifstream file(path, std::ios::binary);
  require(file.good(), "cannot open '{}'", path.string());
  file.read(start.data(), start.size());
  const std::string_view text(start.data(), start.size());
  if (text.starts_with("PK")) return FileKind::npz;
  if (text.starts_with("\x93NUMPY")) return FileKind::npy;
  if (start[0] == 0 && start[1] == 0 && start[2] >= 8 && start[2] <= 14) return FileKind::idx;
  if (path.extension() == ".npz") return FileKind::npz;  // truncated: the opener says so
  if (path.extension() == ".npy") return FileKind::npy;
  return FileKind::unknown;
}

bool is_label_name(const std::string& name) { return name == "y" || name == "labels"; }

std::unique_ptr<ArrayReader> open_labels(const fs::path& path) {
  switch (kind_of(path)) {
    case FileKind::npy:
      return open_npy(path);
    case FileKind::idx:
      return open_idx(path);
    case FileKind::npz: {
      auto arrays = open_npz(path);
      if (arrays.size() == 1) return std::move(arrays.front());
      for (auto& array : arrays)
        if (is_label_name(array->info().name)) return std::move(array);
      fail("'{}' holds {} arrays and none is named 'y' or 'labels'", path.string(), arrays.size());
    }
    case FileKind::unknown:
      break;
  }
  fail("'{}': labels are a .npy, .npz or IDX file", path.string());
}

DataSource open_file(const fs::path& path, const std::vector<InputSpec>& inputs) {
  DataSource source;
  source.path = path;
  switch (kind_of(path)) {
    case FileKind::npz:
      for (auto& array : open_npz(path)) {
        const std::string& name = array->info().name;
        const bool is_input =
            std::any_of(inputs.begin(), inputs.end(),
                        [&](const InputSpec& input) { return input.name == name; });
        if (!is_input && is_label_name(name) && !source.labels)
          source.labels = std::move(array);
        else
          source.arrays.push_back(std::move(array));
      }
      return source;
    case FileKind::npy:
      source.arrays.push_back(open_npy(path));
      return source;
    case FileKind::idx:
      source.arrays.push_back(open_idx(path));
      source.reshape_rows = true;
      if (const auto labels = idx_labels_beside(path)) source.labels = open_idx(*labels);
      return source;
    case FileKind::unknown:
      break;
  }
  fail(
      "'{}' is no data that onnxpress reads: .npz, .npy, IDX, an ONNX test set (input_0.pb) or a "
      "folder of images by class",
      path.string());
}

// What a folder of images must hold, from the only input's declared shape.
ImageFormat image_format(const std::vector<InputSpec>& inputs, const DataOptions& options) {
  require(inputs.size() == 1, "a folder of images fits a model of one input, this one has {}",
          inputs.size());
  const InputSpec& input = inputs.front();
  require(input.shape.size() == 4, "input '{}': expected 4 axes for images, found {}", input.name,
          to_string(input.shape));
  const auto is_channels = [&](std::size_t axis) {
    const std::int64_t dim = input.shape[axis].value();
    return dim == 1 || dim == 3;
  };
  const ImageLayout layout = options.layout.value_or(
      !is_channels(1) && is_channels(3) ? ImageLayout::nhwc : ImageLayout::nchw);
  const bool first = layout == ImageLayout::nchw;
  const auto dim = [&](std::size_t axis, const char* what) {
    require(input.shape[axis].is_known(),
            "input '{}' {}: the {} is not fixed, so images have no size to match", input.name,
            to_string(input.shape), what);
    return static_cast<std::size_t>(input.shape[axis].value());
  };
  ImageFormat format;
  format.layout = layout;
  format.channels = dim(first ? 1 : 3, "channel count");
  format.height = dim(first ? 2 : 1, "height");
  format.width = dim(first ? 3 : 2, "width");
  require(format.channels == 1 || format.channels == 3,
          "input '{}' {}: expected 1 or 3 channels for images, found {} (see --layout)", input.name,
          to_string(input.shape), format.channels);
  return format;
}

class RandomDataset : public Dataset {
 public:
  RandomDataset(const Model& model, std::int64_t count, std::uint64_t seed, InputRanges ranges,
                std::map<std::string, Dims> fixed)
      : model_(model.clone()),
        count_(count),
        seed_(seed),
        ranges_(std::move(ranges)),
        fixed_(std::move(fixed)),
        rows_(leading_count(probe_inputs(*model_, seed_, ranges_, fixed_))) {}

  std::int64_t samples() const override { return count_ * rows_; }
  bool labelled() const override { return false; }
  void rewind() override { next_ = 0; }
  bool next(Batch& batch) override {
    if (next_ == count_) return false;
    batch.inputs =
        probe_inputs(*model_, seed_ + static_cast<std::uint64_t>(next_++), ranges_, fixed_);
    batch.labels = {};
    batch.samples = rows_;
    return true;
  }
  std::string description() const override {
    return fmt::format("random data ({} samples, seed {})", samples(), seed_);
  }
  std::string hash() const override { return {}; }
  bool generated() const override { return true; }

 private:
  std::unique_ptr<Model> model_;
  std::int64_t count_;
  std::uint64_t seed_;
  InputRanges ranges_;
  std::map<std::string, Dims> fixed_;
  std::int64_t rows_;
  std::int64_t next_ = 0;
};

}  // namespace

std::vector<InputSpec> input_specs(const Model& model) {
  std::vector<InputSpec> specs;
  for (const Value* value : model.required_inputs()) {
    require(value->type.is_tensor(), "input '{}' is {}: data files hold tensors only",
            value->name(), to_string(value->type));
    require(value->type.shape.has_value(), "input '{}' has no declared shape", value->name());
    specs.push_back({value->name(), value->type.elem, *value->type.shape});
  }
  require(!specs.empty(), "the model has no required inputs to bind data to");
  return specs;
}

std::int64_t leading_count(const std::vector<Tensor>& inputs) {
  std::int64_t count = 0;
  for (const Tensor& input : inputs) {
    if (input.rank() == 0) continue;
    if (count != 0 && count != input.dim(0)) return 1;
    count = input.dim(0);
  }
  return std::max<std::int64_t>(count, 1);
}

std::optional<std::string> rounding_note(const InputSpec& input, DType found) {
  struct Precision {
    int digits = 0, exponent_bits = 0;  // significant bits, the hidden one included
  };
  const auto precision = [](DType type) -> Precision {
    switch (type) {
      case DType::float64:
        return {53, 11};
      case DType::float32:
        return {24, 8};
      case DType::float16:
        return {11, 5};
      case DType::bfloat16:
        return {8, 8};
      default:
        return {};
    }
  };
  if (found == input.dtype || !is_float(found) || !is_float(input.dtype)) return std::nullopt;
  const Precision from = precision(found), to = precision(input.dtype);
  // Types of 8 bits and fewer go into all of the above, but for float8e8m0 and float16's exponent.
  const Precision needed =
      from.digits > 0 ? from : Precision{4, found == DType::float8e8m0 ? 8 : 5};
  const bool is_exact = to.digits >= needed.digits && to.exponent_bits >= needed.exponent_bits;
  if (is_exact) return std::nullopt;
  return fmt::format("input '{}' takes {}: {} data was rounded", input.name, name(input.dtype),
                     name(found));
}

std::unique_ptr<Dataset> open_data(const fs::path& path, const Model& model,
                                   const DataOptions& options) {
  return in_context(
      [&] { return fmt::format("reading data '{}'", path.string()); },
      [&]() -> std::unique_ptr<Dataset> {
        require(fs::exists(path), "no such file or folder");
        if (is_test_set(path)) return open_test_sets(path, model, options);
        std::vector<InputSpec> inputs = input_specs(model);
        for (const auto& [name, axis] : options.batch_axis) {
          const auto found = std::find_if(
              inputs.begin(), inputs.end(),
              [&, &wanted = name](const InputSpec& input) { return input.name == wanted; });
          require(found != inputs.end(), "--batch-axis: the model has no input '{}'", name);
          require(axis < found->shape.size(), "--batch-axis: input '{}' {} has no axis {}", name,
                  to_string(found->shape), axis);
        }
        DataSource source = fs::is_directory(path)
                                ? open_image_folder(path, image_format(inputs, options))
                                : open_file(path, inputs);
        if (!options.labels.empty()) source.labels = open_labels(options.labels);
        return bind_arrays(std::move(source), std::move(inputs), options);
      });
}

std::unique_ptr<Dataset> random_data(const Model& model, std::int64_t count, std::uint64_t seed,
                                     const InputRanges& ranges,
                                     const std::map<std::string, Dims>& fixed) {
  return std::make_unique<RandomDataset>(model, count, seed, ranges, fixed);
}

}  // namespace onnxpress
