// DATA: files and folders of samples, bound to a model's inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/exec/dataset.h"
#include "tools/data/images.h"

namespace onnxpress {

// Preprocessing and batching, as said on the command line.
struct DataOptions {
  // value = (data * scale - mean) / std, for float inputs. mean and std: one value, or one per
  // channel. Integers become float only when scale or mean is given.
  std::optional<double> scale;
  std::vector<double> mean, std;
  std::optional<ImageLayout> layout;  // where the model has its channels; else from shapes
  std::map<std::string, std::size_t> batch_axis;  // by input name; 0 otherwise
  std::int64_t batch = 0;        // of a dynamic batch axis; 0: 32, less for large rows
  std::filesystem::path labels;  // a file of labels (.npy, .npz, IDX); may be empty
  // ONNX test sets of models whose inputs include sequences or optionals: Batch::values.
  bool accepts_values = false;
  bool keeps_further = false;  // arrays that are neither input nor labels: Batch::further

  bool converts_integers() const { return scale.has_value() || !mean.empty(); }
};

// Opens DATA by its contents: .npz, .npy, IDX, a TensorProto (.pb), a folder of ONNX test sets or
// of images by class. Throws Error when it does not fit the model: arrays missing (names listed),
// wrong element type, wrong shape, different sample counts, labels of another count.
std::unique_ptr<Dataset> open_data(const std::filesystem::path& path, const Model& model,
                                   const DataOptions& options = {});

// `count` seeded random batches of probe_inputs.
std::unique_ptr<Dataset> random_data(const Model& model, std::int64_t count, std::uint64_t seed,
                                     const InputRanges& ranges = {},
                                     const std::map<std::string, Dims>& fixed = {});

// A required input as data readers see it.
struct InputSpec {
  std::string name;
  DType dtype = DType::undefined;
  Shape shape;
};
// Throws Error for inputs that are no tensors or have no declared rank.
std::vector<InputSpec> input_specs(const Model& model);

// What to say when data of floating-point type `found` is rounded for the input; nothing when it
// keeps every value.
std::optional<std::string> rounding_note(const InputSpec& input, DType found);

// The three kinds of data that open_data tells apart.
std::unique_ptr<Dataset> bind_arrays(DataSource source, std::vector<InputSpec> inputs,
                                     const DataOptions& options);
// A folder with input_0.pb, a folder of such folders, or a single TensorProto file.
bool is_test_set(const std::filesystem::path& path);
std::unique_ptr<Dataset> open_test_sets(const std::filesystem::path& path, const Model& model,
                                        const DataOptions& options = {});

// Rows of a whole run: the leading dim that all inputs of rank > 0 share, else 1.
std::int64_t leading_count(const std::vector<Tensor>& inputs);

}  // namespace onnxpress
