// Tensors in files beside the model: hostile locations, links, ranges; and writing them.
#include <filesystem>

#include "tests/graph/base/temporary_folder.h"
#include "tests/graph/onnx/support.h"

namespace onnxpress::test {

namespace fs = std::filesystem;

namespace {

// w is 4 floats in `location`.
onnx::ModelProto external_model(const std::string& location, const std::string& offset = "",
                                const std::string& length = "") {
  onnx::ModelProto model = small_model();
  onnx::TensorProto& tensor = *model.mutable_graph()->mutable_initializer(0);
  tensor.clear_float_data();
  tensor.set_dims(0, 4);
  tensor.set_data_location(onnx::TensorProto::EXTERNAL);
  const auto add = [&](const std::string& key, const std::string& value) {
    if (value.empty()) return;
    tensor.add_external_data()->set_key(key);
    tensor.mutable_external_data(tensor.external_data_size() - 1)->set_value(value);
  };
  add("location", location);
  add("offset", offset);
  add("length", length);
  add("checksum", "0123456789abcdef0123456789abcdef01234567");
  return model;
}

std::string floats(std::initializer_list<float> values) {
  std::string bytes;
  for (const float value : values)
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

std::vector<float> weights(const ReadResult& result) {
  return result.model->graph.find("w")->constant()->to_floats();
}

// A model with a large, a middling and a small initializer, and a large constant.
std::unique_ptr<Model> sizable_model() {
  auto model = std::make_unique<Model>();
  model->opsets[""] = 17;
  Graph& graph = model->graph;
  graph.name = "main";
  Value* x = graph.add_input("x", Type::tensor(DType::float32, {1}));
  const auto filled = [](std::int64_t count, float value) {
    return Tensor::of<float>({count}, std::vector<float>(static_cast<std::size_t>(count), value));
  };
  Value* large = graph.add_initializer("large", filled(1 << 19, 1));
  Value* middling = graph.add_initializer("middling", filled(1 << 10, 2));
  Value* again = graph.add_initializer("again", middling->constant()->reshaped({1, 1 << 10}));
  Value* little = graph.add_initializer("little", filled(2, 3));
  NodeSpec constant{.op_type = "Constant", .outputs = {"c"}};
  constant.attributes["value"] = Attribute(filled(1 << 10, 4));
  Value* made = graph.add_node(std::move(constant))->output();
  Node* sum = graph.add_node(
      {.op_type = "Sum", .inputs = {x, large, middling, again, little, made}, .outputs = {"y"}});
  graph.add_output(sum->output());
  return model;
}

bool is_data_name(const std::string& name, const std::string& stem) {
  return name.size() == stem.size() + 22 && name.starts_with(stem + "-") && name.ends_with(".data");
}

}  // namespace

TEST_CASE("external data is found, mapped once and not copied") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "sub");
  folder.write("sub/w.bin", "pad " + floats({1, 2, 3, 4}));
  onnx::ModelProto model = external_model("sub/w.bin", "4", "16");
  *model.mutable_graph()->add_initializer() = model.graph().initializer(0);
  model.mutable_graph()->mutable_initializer(1)->set_name("v");
  folder.write("m.onnx", model.SerializeAsString());
  const ReadResult result = read_model(folder / "m.onnx");
  CHECK(weights(result) == std::vector<float>{1, 2, 3, 4});
  CHECK(result.model->external_data);
  CHECK(result.data_files == std::vector<fs::path>{fs::canonical(folder / "sub/w.bin")});
  CHECK(result.total_bytes == result.file_bytes + 20);
  CHECK(result.model->graph.find("v")->constant()->bytes().data() ==
        result.model->graph.find("w")->constant()->bytes().data());
}

TEST_CASE("offset and length may be missing") {
  const TemporaryFolder folder;
  folder.write("w.bin", floats({1, 2, 3, 4, 5}));
  folder.write("m.onnx", external_model("w.bin").SerializeAsString());
  CHECK(weights(read_model(folder / "m.onnx")) == std::vector<float>{1, 2, 3, 4});
  folder.write("m.onnx", external_model("w.bin", "4").SerializeAsString());
  CHECK(weights(read_model(folder / "m.onnx")) == std::vector<float>{2, 3, 4, 5});
}

TEST_CASE("a tensor without elements needs no file") {
  onnx::ModelProto model = external_model("missing");
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, 0);
  const ReadResult result = read(model);
  CHECK(result.model->graph.find("w")->constant()->dims() == Dims{0});
  CHECK_FALSE(result.model->external_data);
}

TEST_CASE("locations that leave the folder are refused") {
  const TemporaryFolder outside;
  outside.write("secret", floats({1, 2, 3, 4}));
  const TemporaryFolder folder;
  folder.write("w.bin", floats({1, 2, 3, 4}));
  fs::create_directory(folder / "sub");
  fs::create_symlink(outside / "secret", folder / "link");
  fs::create_directory_symlink(outside / "", folder / "door");
  const auto error = [&](const onnx::ModelProto& model) {
    folder.write("m.onnx", model.SerializeAsString());
    return error_of([&] { read_model(folder / "m.onnx"); });
  };
  CHECK_CONTAINS(error(external_model((outside / "secret").string())),
                 "tensor 'w': expected a relative path to external data");
  CHECK_CONTAINS(error(external_model("../secret")), "leaves the model's folder");
  CHECK_CONTAINS(error(external_model("sub/../w.bin")), "leaves the model's folder");
  CHECK_CONTAINS(error(external_model("link")), "outside the model's folder");
  CHECK_CONTAINS(error(external_model("door/secret")), "outside the model's folder");
  fs::create_symlink("loop", folder / "loop");
  CHECK_CONTAINS(error(external_model("loop")), "external data file 'loop' is not in");
  CHECK_CONTAINS(error(external_model(std::string(5000, 'x'))), "is not in");
  CHECK_CONTAINS(error(external_model("missing")), "external data file 'missing' is not in");
  CHECK_CONTAINS(error(external_model("sub")), "expected a regular file, found a folder");
  CHECK_CONTAINS(error(external_model(std::string("w.bin\0x", 7))), "expected a relative path");
  CHECK_CONTAINS(error(external_model("")), "expected a relative path");
  CHECK_CONTAINS(error(external_model(".")), "'.'");
}

TEST_CASE("ranges outside the file are refused") {
  const TemporaryFolder folder;
  folder.write("w.bin", floats({1, 2, 3, 4}));
  const auto error = [&](const onnx::ModelProto& model) {
    folder.write("m.onnx", model.SerializeAsString());
    return error_of([&] { read_model(folder / "m.onnx"); });
  };
  CHECK_CONTAINS(error(external_model("w.bin", "1")),
                 "needs 16 bytes at 1 of external data 'w.bin', which has 16");
  CHECK_CONTAINS(error(external_model("w.bin", "18446744073709551615")), "which has 16");
  CHECK_CONTAINS(error(external_model("w.bin", "0", "12")),
                 "needs 16 bytes, external data 'w.bin' gives 12");
  for (const char* number : {"-1", "x", "1x", " 1", "99999999999999999999999"})
    CHECK_CONTAINS(error(external_model("w.bin", number)),
                   "expected a number for external data's offset");
}

TEST_CASE("caches link models and their data") {
  const TemporaryFolder cache;
  fs::create_directories(cache / "blobs");
  fs::create_directories(cache / "snapshots/1");
  cache.write("blobs/aaa", external_model("model.data").SerializeAsString());
  cache.write("blobs/bbb", floats({1, 2, 3, 4}));
  fs::create_symlink("../../blobs/aaa", cache / "snapshots/1/model.onnx");
  SUBCASE("data linked beside the link") {
    fs::create_symlink("../../blobs/bbb", cache / "snapshots/1/model.data");
  }
  SUBCASE("data beside the link") {
    fs::copy(cache / "blobs/bbb", cache / "snapshots/1/model.data");
  }
  SUBCASE("data beside what the link means") {
    fs::copy(cache / "blobs/bbb", cache / "blobs/model.data");
  }
  CHECK(weights(read_model(cache / "snapshots/1/model.onnx")) == std::vector<float>{1, 2, 3, 4});
}

TEST_CASE("models from memory and streams have no folder") {
  CHECK_CONTAINS(read_error(external_model("w.bin")), "has no folder to be looked up in");
}

TEST_CASE("external stays external, in a new file named by its contents") {
  const TemporaryFolder folder;
  const auto model = sizable_model();
  const WriteResult first =
      write_model(*model, folder / "m.onnx", {.external = ExternalData::always});
  CHECK(is_data_name(first.data_file.filename().string(), "m"));
  CHECK(folder.names().size() == 2);
  // The large tensor on a page, the next one after it: both of these once.
  CHECK(fs::file_size(first.data_file) == (std::size_t{4} << 19) + 4096);
  CHECK(first.file_bytes == fs::file_size(folder / "m.onnx"));
  CHECK(first.total_bytes == first.file_bytes + fs::file_size(first.data_file));

  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(folder.read("m.onnx")));
  const onnx::TensorProto& large = proto.graph().initializer(0);
  CHECK(large.data_location() == onnx::TensorProto::EXTERNAL);
  REQUIRE(large.external_data_size() == 3);
  CHECK(large.external_data(0).value() == first.data_file.filename().string());
  CHECK(large.external_data(1).value() == "0");
  CHECK(large.external_data(2).value() == std::to_string(4 << 19));
  CHECK(proto.graph().initializer(3).data_location() == onnx::TensorProto::DEFAULT);
  CHECK(proto.graph().node(0).attribute(0).t().has_raw_data());

  const ReadResult read = read_model(folder / "m.onnx");
  CHECK(structural_hash(*read.model, true) == structural_hash(*model, true));
  CHECK(write_model(*read.model, folder / "n.onnx").data_file ==
        folder / ("n" + first.data_file.filename().string().substr(1)));
  CHECK(write_model(*read.model, folder / "inline.onnx", {.external = ExternalData::never})
            .data_file.empty());
  CHECK(structural_hash(*read_model(folder / "inline.onnx").model, true) ==
        structural_hash(*model, true));
}

TEST_CASE("writing a model over itself leaves one data file") {
  const TemporaryFolder folder;
  auto model = sizable_model();
  const WriteOptions external{.external = ExternalData::always};
  const fs::path old_data = write_model(*model, folder / "m.onnx", external).data_file;
  ReadResult read = read_model(folder / "m.onnx");
  SUBCASE("unchanged") {
    CHECK(write_model(*read.model, folder / "m.onnx").data_file == old_data);
    CHECK(folder.names().size() == 2);
  }
  SUBCASE("changed") {
    read.model->graph.set_initializer(read.model->graph.find("large"),
                                      Tensor(DType::float32, {1 << 19}));
    const fs::path new_data = write_model(*read.model, folder / "m.onnx").data_file;
    CHECK(new_data != old_data);
    CHECK(folder.names() == std::set<std::string>{"m.onnx", new_data.filename().string()});
    CHECK(read.model->graph.find("middling")->constant()->to_floats()[0] == 2);
  }
  SUBCASE("now inline") {
    write_model(*read.model, folder / "m.onnx", {.external = ExternalData::never});
    CHECK(folder.names() == std::set<std::string>{"m.onnx"});
  }
  SUBCASE("nothing is staged: nothing changes") {
    const auto names = folder.names();
    StagedFiles staged;
    stage_model(*read.model, folder / "m.onnx", staged, {.external = ExternalData::never});
    CHECK(folder.names() == names);
  }
}

TEST_CASE("data files of others are left alone") {
  const TemporaryFolder folder;
  folder.write("w.bin", floats({1, 2, 3, 4}));
  folder.write("other-0123456789abcdef.data", floats({1, 2, 3, 4}));
  folder.write("m-0123456789abcdef.dat", floats({1, 2, 3, 4}));
  folder.write("m-0123456789ABCDEF.data", floats({1, 2, 3, 4}));
  for (const std::string& name : folder.names()) {
    folder.write("m.onnx", external_model(name).SerializeAsString());
    write_model(*read(small_model()).model, folder / "m.onnx");
    CHECK(folder.names().contains(name));
  }
  folder.write("m.onnx", "not a model");
  write_model(*read(small_model()).model, folder / "m.onnx");
  CHECK(folder.names().size() == 5);
}

TEST_CASE("tensors in attributes go outside only when nothing else helps") {
  const auto model = sizable_model();
  const TemporaryFolder folder;
  const WriteResult result = write_model(
      *model, folder / "m.onnx", {.external = ExternalData::always, .external_threshold = 1});
  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(folder.read("m.onnx")));
  CHECK(proto.graph().initializer(3).data_location() == onnx::TensorProto::EXTERNAL);
  CHECK(proto.graph().node(0).attribute(0).t().data_location() == onnx::TensorProto::DEFAULT);
  CHECK_FALSE(result.data_file.empty());
}

TEST_CASE("a model without large tensors needs no data file") {
  const TemporaryFolder folder;
  write_model(*read(small_model()).model, folder / "m.onnx", {.external = ExternalData::always});
  CHECK(folder.names() == std::set<std::string>{"m.onnx"});
}

TEST_CASE("external data goes beside the file that a link means") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "store");
  folder.write("store/real.onnx", "");
  fs::create_symlink("store/real.onnx", folder / "m.onnx");
  const auto model = sizable_model();
  const WriteResult result =
      write_model(*model, folder / "m.onnx", {.external = ExternalData::always});
  CHECK(fs::canonical(result.data_file).parent_path() == fs::canonical(folder / "store"));
  CHECK(structural_hash(*read_model(folder / "m.onnx").model) == structural_hash(*model));
  CHECK(structural_hash(*read_model(folder / "store/real.onnx").model) == structural_hash(*model));
}

}  // namespace onnxpress::test
