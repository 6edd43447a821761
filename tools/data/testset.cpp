// ONNX test sets: FOLDER/test_data_set_N/input_K.pb, output_K.pb.
#include <algorithm>
#include <map>

#include "graph/base/error.h"
#include "graph/onnx/reader.h"
#include "tools/data/array.h"
#include "tools/data/data.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

// "input_12.pb" is 12 of "input_".
std::optional<int> file_index(const fs::path& path, std::string_view prefix) {
  const std::string name = path.filename().string();
  if (!name.starts_with(prefix) || !name.ends_with(".pb")) return std::nullopt;
  const std::string digits = name.substr(prefix.size(), name.size() - prefix.size() - 3);
  if (digits.empty() || digits.size() > 6 ||
      !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return std::nullopt;
  return std::stoi(digits);
}

// Files PREFIX_K.pb of a folder, by K.
std::map<int, fs::path> numbered(const fs::path& folder, std::string_view prefix) {
  std::map<int, fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (const auto index = file_index(entry.path(), prefix)) files[*index] = entry.path();
  return files;
}

// The required inputs of a model that has others than tensors; empty where all are tensors.
std::vector<const Value*> value_inputs(const Model& model) {
  const std::vector<Value*> inputs = model.required_inputs();
  const bool tensors_only =
      std::ranges::all_of(inputs, [](const Value* input) { return input->type.is_tensor(); });
  return tensors_only ? std::vector<const Value*>()
                      : std::vector<const Value*>(inputs.begin(), inputs.end());
}

// test_data_set_K folders by K, so that 10 comes after 9.
std::vector<fs::path> set_folders(const fs::path& path) {
  constexpr std::string_view prefix = "test_data_set_";
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_directory() && entry.path().filename().string().starts_with(prefix))
      folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end(), [](const fs::path& a, const fs::path& b) {
    const std::string x = a.filename().string(), y = b.filename().string();
    return std::pair(x.size(), x) < std::pair(y.size(), y);
  });
  return folders;
}

class TestSets : public Dataset {
 public:
  TestSets(fs::path path, const Model& model, const DataOptions& options) : path_(std::move(path)) {
    if (options.accepts_values) values_ = value_inputs(model);
    if (values_.empty()) inputs_ = input_specs(model);
    if (fs::is_directory(path_)) {
      sets_ = set_folders(path_);
      if (sets_.empty()) sets_.push_back(path_);
    } else {
      sets_.push_back(path_);
    }
    Batch batch;
    while (next(batch)) {
      samples_ += batch.samples;
      labelled_ = batch.labels.defined();
    }
    rewind();
  }

  std::int64_t samples() const override { return samples_; }
  bool labelled() const override { return labelled_; }
  void rewind() override { next_ = 0; }
  bool next(Batch& batch) override {
    if (next_ == sets_.size()) return false;
    const fs::path& set = sets_[next_++];
    in_context([&] { return set.filename().string(); }, [&] { load(set, batch); });
    return true;
  }
  std::string description() const override {
    return fmt::format("{} ({} test set{}, {} samples)", path_.filename().string(), sets_.size(),
                       sets_.size() == 1 ? "" : "s", samples_);
  }
  std::string hash() const override { return hash_of_data(path_); }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  void load(const fs::path& set, Batch& batch) {
    batch = {};
    if (values_.empty())
      load_tensors(set, batch);
    else
      load_values(set, batch);
  }

  // By position. The whole set is one sample.
  void load_values(const fs::path& set, Batch& batch) const {
    std::map<int, fs::path> files{{0, set}};
    if (fs::is_directory(set)) files = numbered(set, "input_");
    check_count(files.size(), values_.size());
    for (const auto& [index, file] : files)
      batch.values.push_back(read_value(file, values_[batch.values.size()]->type));
    batch.samples = 1;
  }

  static void check_count(std::size_t found, std::size_t expected) {
    require(found == expected, "expected {} input_*.pb for the model's inputs, found {}", expected,
            found);
  }

  void load_tensors(const fs::path& set, Batch& batch) {
    std::vector<NamedTensor> tensors;
    if (fs::is_directory(set)) {
      for (const auto& [index, file] : numbered(set, "input_"))
        tensors.push_back(read_tensor(file));
      const auto outputs = numbered(set, "output_");
      if (outputs.size() == 1) batch.labels = read_tensor(outputs.begin()->second).tensor;
    } else {
      tensors.push_back(read_tensor(set));
    }
    check_count(tensors.size(), inputs_.size());
    batch.inputs.assign(inputs_.size(), Tensor());
    const bool by_name = std::all_of(inputs_.begin(), inputs_.end(), [&](const InputSpec& input) {
      return std::any_of(tensors.begin(), tensors.end(),
                         [&](const NamedTensor& tensor) { return tensor.name == input.name; });
    });
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      std::size_t at = i;
      for (std::size_t k = 0; by_name && k < inputs_.size(); ++k)
        if (inputs_[k].name == tensors[i].name) at = k;
      batch.inputs[at] = tensors[i].tensor;
    }
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      check(inputs_[i], batch.inputs[i]);
      if (auto note = rounding_note(inputs_[i], batch.inputs[i].dtype());
          note && std::find(notes_.begin(), notes_.end(), *note) == notes_.end())
        notes_.push_back(std::move(*note));
      if (batch.inputs[i].dtype() != inputs_[i].dtype)
        batch.inputs[i] = batch.inputs[i].cast(inputs_[i].dtype);
    }
    batch.samples = leading_count(batch.inputs);
  }

  static void check(const InputSpec& input, const Tensor& tensor) {
    require(
        tensor.defined() &&
            (tensor.dtype() == input.dtype || (is_float(tensor.dtype()) && is_float(input.dtype))),
        "input '{}' expects {}, data has {}", input.name, name(input.dtype), name(tensor.dtype()));
    bool fits = tensor.rank() == input.shape.size();
    for (std::size_t axis = 0; fits && axis < input.shape.size(); ++axis)
      fits = !input.shape[axis].is_known() || input.shape[axis].value() == tensor.dim(axis);
    require(fits, "input '{}' expects shape {}, data has {}", input.name, to_string(input.shape),
            to_string(tensor.dims()));
  }

  fs::path path_;
  std::vector<InputSpec> inputs_;
  std::vector<const Value*> values_;  // instead of inputs_; of the model, which outlives this
  std::vector<fs::path> sets_;
  std::vector<std::string> notes_;  // of all sets: each is read once at first
  std::size_t next_ = 0;
  std::int64_t samples_ = 0;
  bool labelled_ = false;
};

}  // namespace

bool is_test_set(const fs::path& path) {
  if (!fs::is_directory(path)) return path.extension() == ".pb";
  return !set_folders(path).empty() || !numbered(path, "input_").empty();
}

std::unique_ptr<Dataset> open_test_sets(const fs::path& path, const Model& model,
                                        const DataOptions& options) {
  return std::make_unique<TestSets>(path, model, options);
}

}  // namespace onnxpress
