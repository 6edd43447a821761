#include "tools/data/data.h"

#include <doctest/doctest.h>

#include "graph/base/error.h"
#include "graph/ir/parse.h"
#include "graph/onnx/writer.h"
#include "tests/tools/data/scratch.h"

namespace onnxpress {

namespace {

std::unique_ptr<Model> model_of(const std::string& inputs) {
  return parse_model("model ir=8 opset=17\n" + inputs +
                     "y: float32[?] = Identity(x)\noutput y: float32[?]\n");
}

// 0, 1, 2, ... in every element.
template <class T>
Tensor counting(Dims dims) {
  Tensor tensor = Tensor::uninitialized(dtype_of<T>, std::move(dims));
  const auto values = tensor.mutable_data<T>();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(i);
  return tensor;
}

std::string open_error(const std::filesystem::path& path, const Model& model,
                       const DataOptions& options = {}) {
  try {
    open_data(path, model, options);
  } catch (const Error& error) {
    return error.message();
  }
  return "no error";
}

std::vector<Batch> all_batches(Dataset& data) {
  std::vector<Batch> batches;
  Batch batch;
  while (data.next(batch)) batches.push_back(batch);
  return batches;
}

}  // namespace

TEST_CASE("a dynamic batch is cut into slices of --batch, and again after rewind") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,3]\n");
  const auto path = scratch.write_npz(
      "d.npz", {{"x", counting<float>({5, 3})}, {"y", counting<std::int64_t>({5})}});
  const auto data = open_data(path, *model, {.batch = 2});
  CHECK(data->samples() == 5);
  CHECK(data->labelled());
  CHECK(data->description() == "d.npz (5 samples)");
  CHECK(data->hash().size() == 64);
  for (int pass = 0; pass < 2; ++pass) {
    data->rewind();
    const auto batches = all_batches(*data);
    REQUIRE(batches.size() == 3);
    CHECK(batches[2].samples == 1);
    CHECK(batches[2].inputs[0].dims() == Dims{1, 3});
    CHECK(batches[2].inputs[0].data<float>()[0] == 12.0f);
    CHECK(batches[1].labels.data<std::int64_t>()[0] == 2);
  }
}

TEST_CASE("the last slice of a fixed batch is padded with its last sample") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[4,2]\n");
  const auto data = open_data(scratch.write_npz("d.npz", {{"x", counting<float>({6, 2})}}), *model);
  const auto batches = all_batches(*data);
  REQUIRE(batches.size() == 2);
  CHECK(batches[1].samples == 2);
  CHECK(batches[1].inputs[0].to_floats() == std::vector<float>{8, 9, 10, 11, 10, 11, 10, 11});
}

TEST_CASE("a batch axis other than the first") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,2]\ninput state: float32[2,n,1]\n");
  const auto path = scratch.write_npz(
      "d.npz", {{"x", counting<float>({3, 2})}, {"state", counting<float>({2, 3, 1})}});
  DataOptions options;
  options.batch = 2;
  options.batch_axis["state"] = 1;
  const auto batches = all_batches(*open_data(path, *model, options));
  REQUIRE(batches.size() == 2);
  CHECK(batches[0].inputs[1].to_floats() == std::vector<float>{0, 1, 3, 4});
  CHECK(batches[1].inputs[1].to_floats() == std::vector<float>{2, 5});
  options.batch_axis["stat"] = 1;
  CHECK(open_error(path, *model, options) == "--batch-axis: the model has no input 'stat'");
}

TEST_CASE("an array of an input's full shape goes to every batch") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,2]\ninput anchors: float32[3]\n");
  const auto path = scratch.write_npz(
      "d.npz", {{"x", counting<float>({4, 2})}, {"anchors", counting<float>({3})}});
  const auto batches = all_batches(*open_data(path, *model, {.batch = 3}));
  REQUIRE(batches.size() == 2);
  for (const Batch& batch : batches)
    CHECK(batch.inputs[1].to_floats() == std::vector<float>{0, 1, 2});
}

TEST_CASE("arrays match inputs by name, else by position") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,2]\ninput mask: int64[n]\n");
  const Tensor x = counting<float>({2, 2}), mask = counting<std::int64_t>({2});
  const auto by_name =
      open_data(scratch.write_npz("n.npz", {{"mask", mask}, {"x", x}, {"extra", x}}), *model);
  CHECK(all_batches(*by_name)[0].inputs[0].equals(x));
  const auto by_position = open_data(scratch.write_npz("p.npz", {{"a", x}, {"b", mask}}), *model);
  CHECK(all_batches(*by_position)[0].inputs[1].equals(mask));
  CHECK(open_error(scratch.write_npz("m.npz", {{"x", x}, {"b", mask}}), *model) ==
        "no array for input 'mask' (arrays: 'x', 'b')");
  CHECK(open_error(scratch.write_npz("o.npz", {{"a", x}}), *model)
            .find("1 array ('a') cannot be matched to 2 inputs ('x', 'mask')") !=
        std::string::npos);
}

TEST_CASE("lengths are no input by position, and further arrays come when asked for") {
  const Scratch scratch;
  const auto model = model_of("input spectrogram: float32[n,3]\ninput x: float32[n]\n");
  const auto path = scratch.write_npz("d.npz", {{"y_len", counting<std::int32_t>({5})},
                                                {"first", counting<float>({5, 3})},
                                                {"second", counting<float>({5})},
                                                {"x_len", counting<std::int64_t>({5})},
                                                {"y", counting<std::int64_t>({5})}});
  const auto plain = open_data(path, *model, {.batch = 2});
  for (const Batch& batch : all_batches(*plain)) CHECK(batch.further.empty());
  const auto data = open_data(path, *model, {.batch = 2, .keeps_further = true});
  for (int pass = 0; pass < 2; ++pass) {
    data->rewind();
    const auto batches = all_batches(*data);
    REQUIRE(batches.size() == 3);
    CHECK(batches[0].inputs[0].dims() == Dims{2, 3});
    REQUIRE(batches[1].further.size() == 2);
    CHECK(batches[1].further.at("y_len").equals(Tensor::of<std::int64_t>({2}, {2, 3})));
    CHECK(batches[2].further.at("x_len").equals(Tensor::of<std::int64_t>({1}, {4})));
  }
  // By name, whatever has one row a sample.
  const auto named = model_of("input x: float32[n]\n");
  const auto other = scratch.write_npz(
      "n.npz", {{"z", counting<float>({4, 2})}, {"x", counting<float>({4})}, {"table", counting<float>({9})}});
  const auto further = all_batches(*open_data(other, *named, {.keeps_further = true}));
  REQUIRE(further.size() == 1);
  CHECK(further[0].further.size() == 1);
  CHECK(further[0].further.at("z").dims() == Dims{4, 2});
}

TEST_CASE("floating-point data is converted, and told where it is rounded") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,3]\n");
  const auto wide =
      open_data(scratch.write_npz("w.npz", {{"x", counting<double>({2, 3})}}), *model);
  CHECK(all_batches(*wide)[0].inputs[0].equals(counting<float>({2, 3})));
  CHECK(wide->notes() ==
        std::vector<std::string>{"input 'x' takes float32: float64 data was rounded"});
  const Tensor half = counting<float>({2, 3}).cast(DType::float16);
  const auto narrow = open_data(scratch.write_npz("h.npz", {{"x", half}}), *model);
  CHECK(all_batches(*narrow)[0].inputs[0].equals(counting<float>({2, 3})));
  CHECK(narrow->notes().empty());

  const auto rounds = [](DType input, DType data) {
    return rounding_note({.name = "x", .dtype = input, .shape = {}}, data).has_value();
  };
  CHECK(rounds(DType::float16, DType::float32));
  CHECK(rounds(DType::float16, DType::bfloat16));
  CHECK(rounds(DType::bfloat16, DType::float16));
  CHECK(rounds(DType::float16, DType::float8e8m0));
  CHECK_FALSE(rounds(DType::float16, DType::float8e5m2));
  CHECK_FALSE(rounds(DType::float64, DType::float32));
  CHECK_FALSE(rounds(DType::bfloat16, DType::float8e8m0));
  CHECK_FALSE(rounds(DType::float32, DType::int64));
}

TEST_CASE("data that does not fit is an exact error") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,3]\n");
  CHECK(open_error(scratch.write_npz("a.npz", {{"x", counting<std::uint8_t>({2, 3})}}), *model) ==
        "input 'x' expects float32, data has uint8: give --input-scale 1/255 to convert");
  CHECK(open_error(scratch.write_npz("b.npz", {{"x", counting<std::int64_t>({2, 3})}}), *model) ==
        "input 'x' expects float32, data has int64: give --input-scale 1 to convert");
  CHECK(open_error(scratch.write_npz("c.npz", {{"x", counting<float>({2, 4})}}), *model) ==
        "input 'x' expects shape [samples,3], data has [2,4]");
  CHECK(open_error(scratch.write_npz("d.npz", {{"x", counting<float>({2, 3})},
                                               {"y", counting<std::int64_t>({3})}}),
                   *model) == "different sample counts: input 'x' has 2, the labels array has 3");
  CHECK(open_error(scratch.write_npz("e.npz", {{"x", counting<float>({0, 3})}}), *model) ==
        "no samples");
  CHECK(open_error(scratch / "none.npz", *model) == "no such file or folder");
  CHECK(open_error(scratch.write("f.bin", "something"), *model)
            .find("is no data that onnxpress reads") != std::string::npos);
}

TEST_CASE("scale, mean and std per channel turn bytes into floats") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,2,1,2]\n");
  const auto path = scratch.write_npz("d.npz", {{"x", counting<std::uint8_t>({1, 2, 1, 2})}});
  DataOptions options;
  options.scale = 0.5;
  options.mean = {1, 0};
  options.std = {1, 2};
  const auto batches = all_batches(*open_data(path, *model, options));
  CHECK(batches[0].inputs[0].to_floats() == std::vector<float>{-1, -0.5, 0.5, 0.75});
  options.mean = {1, 2, 3};
  CHECK(open_error(path, *model, options)
            .find("3 values of --input-mean or --input-std for 2 channels") != std::string::npos);
}

TEST_CASE("IDX images find their labels by MNIST's naming") {
  const Scratch scratch;
  const auto model = model_of("input x: uint8[n,1,2,2]\n");
  const auto images =
      scratch.write("t-images-idx3-ubyte", std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x02"
                                                       "\1\2\3\4\5\6\7\x08",
                                                       24));
  scratch.write("t-labels-idx1-ubyte", std::string("\0\0\x08\x01\0\0\0\x02\x07\x03", 10));
  const auto data = open_data(images, *model);
  CHECK(data->labelled());
  const auto batches = all_batches(*data);
  CHECK(batches[0].inputs[0].dims() == Dims{2, 1, 2, 2});
  CHECK(batches[0].labels.to_ints() == std::vector<std::int64_t>{7, 3});
  CHECK(open_error(scratch.write("cut-idx3", std::string("\0\0\x08\x01\0\0\0\x09\x07", 9)), *model)
            .find("expected 9 bytes of data") != std::string::npos);
}

TEST_CASE("big-endian IDX elements are swapped") {
  const Scratch scratch;
  const auto model = parse_model(
      "model ir=8 opset=17\ninput x: int16[n,1]\ny: int16[?] = Identity(x)\noutput y: int16[?]\n");
  const auto path = scratch.write("v", std::string("\0\0\x0b\x02\0\0\0\x02\0\0\0\x01\0\1\1\0", 16));
  CHECK(all_batches(*open_data(path, *model))[0].inputs[0].to_ints() ==
        std::vector<std::int64_t>{1, 256});
}

TEST_CASE("an ONNX test set feeds whole runs; its output is the label") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,2]\n");
  const Tensor x = counting<float>({3, 2}), y = counting<float>({3});
  for (const char* set : {"test_data_set_0", "test_data_set_1"}) {
    scratch.write(std::string(set) + "/input_0.pb", tensor_to_bytes(x, "x"));
    scratch.write(std::string(set) + "/output_0.pb", tensor_to_bytes(y, "y"));
  }
  for (const auto& path :
       {scratch.path(), scratch / "test_data_set_1", scratch / "test_data_set_0/input_0.pb"}) {
    CAPTURE(path.string());
    const auto data = open_data(path, *model);
    CHECK(data->labelled() == std::filesystem::is_directory(path));
    const auto batches = all_batches(*data);
    CHECK(batches.size() == (path == scratch.path() ? 2 : 1));
    CHECK(batches[0].samples == 3);
    CHECK(batches[0].inputs[0].equals(x));
  }
  scratch.write("test_data_set_1/input_0.pb", tensor_to_bytes(counting<std::int64_t>({3, 2}), "x"));
  CHECK(open_error(scratch.path(), *model) == "input 'x' expects float32, data has int64");
}

TEST_CASE("a test set holds sequences and optionals where the model takes them") {
  const Scratch scratch;
  const auto model = parse_model(R"(model ir=8 opset=18
input s: sequence(float32[?])
input o: optional(int64[3])
input x: float32[n,2]
y = Identity(s)
output y: sequence(float32[?])
)");
  const RuntimeValue values[] = {
      RuntimeValue::sequence({counting<float>({2}), counting<float>({1})}),
      RuntimeValue::filled_optional(counting<std::int64_t>({3})), counting<float>({3, 2})};
  for (int i = 0; i < 3; ++i)
    scratch.write(fmt::format("test_data_set_0/input_{}.pb", i), value_to_bytes(values[i], ""));
  const auto data = open_data(scratch.path(), *model, {.accepts_values = true});
  CHECK(data->samples() == 1);
  const auto batches = all_batches(*data);
  REQUIRE(batches.size() == 1);
  CHECK(batches[0].inputs.empty());
  REQUIRE(batches[0].values.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK(batches[0].values[i].equals(values[i]));
  CHECK(open_error(scratch.path(), *model) ==
        "input 's' is sequence(float32[?]): data files hold tensors only");
  std::filesystem::remove(scratch / "test_data_set_0/input_2.pb");
  CHECK(open_error(scratch.path(), *model, {.accepts_values = true}) ==
        "expected 3 input_*.pb for the model's inputs, found 2");
}

TEST_CASE("labels come from another file") {
  const Scratch scratch;
  const auto model = model_of("input x: float32[n,3]\n");
  const auto path = scratch.write_npz("d.npz", {{"x", counting<float>({2, 3})}});
  DataOptions options;
  options.labels = scratch.write_npz("l.npz", {{"whatever", counting<std::uint8_t>({2})}});
  const auto data = open_data(path, *model, options);
  CHECK(all_batches(*data)[0].labels.to_ints() == std::vector<std::int64_t>{0, 1});
}

TEST_CASE("random data is the same for the same seed, and says what it is") {
  const auto model = model_of("input x: float32[n,3]\n");
  const auto one = random_data(*model, 3, 7), two = random_data(*model, 3, 7),
             other = random_data(*model, 3, 8);
  CHECK(one->generated());
  const auto a = all_batches(*one), b = all_batches(*two), c = all_batches(*other);
  REQUIRE(a.size() == 3);
  CHECK(a[2].inputs[0].equals(b[2].inputs[0]));
  CHECK_FALSE(a[0].inputs[0].equals(a[1].inputs[0]));
  CHECK_FALSE(a[0].inputs[0].equals(c[0].inputs[0]));
}

}  // namespace onnxpress
