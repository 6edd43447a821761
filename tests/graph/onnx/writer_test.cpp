// The form of what is written.
#include <unistd.h>

#include "tests/graph/base/temporary_folder.h"
#include "tests/graph/onnx/support.h"

namespace onnxpress::test {

namespace {

Tensor filled(std::int64_t count) {
  return Tensor::of<float>({count}, std::vector<float>(static_cast<std::size_t>(count), 1.0f));
}

}  // namespace

TEST_CASE("fields are in the order of their numbers, as libonnx writes them") {
  onnx::ModelProto model = small_model();
  model.set_producer_name("producer");
  model.set_producer_version("1.0");
  model.set_domain("domain");
  model.set_model_version(3);
  model.set_doc_string("about");
  auto* metadata = model.add_metadata_props();
  metadata->set_key("author");
  metadata->set_value("somebody");
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.set_doc_string("graph");
  graph.mutable_input(0)->set_doc_string("input");
  graph.mutable_node(0)->set_doc_string("node");
  graph.mutable_node(1)->set_domain("other");
  onnx::TensorProto& tensor = *graph.mutable_initializer(0);
  tensor.set_doc_string("tensor");
  tensor.clear_float_data();
  tensor.set_raw_data(std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  add_float_value(*graph.add_value_info(), "y", {2});
  graph.mutable_value_info(0)->mutable_type()->set_denotation("IMAGE");
  const std::string bytes = model.SerializeAsString();
  const ReadResult result = read_bytes(bytes);
  CHECK(to_bytes(*result.model) == bytes);
  CHECK(serialized_size(*result.model) == bytes.size());
}

TEST_CASE("types of every kind survive") {
  onnx::ModelProto model = small_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  const auto add = [&](const std::string& name) {
    graph.add_input()->set_name(name);
    return graph.mutable_input(graph.input_size() - 1)->mutable_type();
  };
  auto* dims = add("dims")->mutable_tensor_type();
  dims->set_elem_type(onnx::TensorProto::STRING);
  dims->mutable_shape()->add_dim()->set_dim_param("batch");
  dims->mutable_shape()->mutable_dim(0)->set_denotation("DATA_BATCH");
  dims->mutable_shape()->add_dim();
  dims->mutable_shape()->add_dim()->set_dim_value(0);
  add("scalar")->mutable_tensor_type()->mutable_shape();
  add("any_rank")->mutable_tensor_type()->set_elem_type(onnx::TensorProto::INT8);
  add("sparse")->mutable_sparse_tensor_type()->set_elem_type(onnx::TensorProto::FLOAT);
  add("sequence")
      ->mutable_sequence_type()
      ->mutable_elem_type()
      ->mutable_optional_type()
      ->mutable_elem_type()
      ->mutable_tensor_type()
      ->set_elem_type(onnx::TensorProto::FLOAT);
  auto* map = add("map")->mutable_map_type();
  map->set_key_type(onnx::TensorProto::INT64);
  map->mutable_value_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::FLOAT);
  add("opaque")->mutable_opaque_type()->set_domain("d");
  add("nothing");
  graph.mutable_input(graph.input_size() - 1)->clear_type();
  const onnx::ModelProto again = written(*read(model).model);
  REQUIRE(again.graph().input_size() == graph.input_size());
  for (int i = 0; i < graph.input_size(); ++i)
    CHECK(again.graph().input(i).SerializeAsString() == graph.input(i).SerializeAsString());
}

TEST_CASE("unknown fields survive in every message") {
  const std::string unknown = varint_field(1000, 5) + bytes_field(1001, "text") +
                              fixed_field<std::uint32_t>(1002, 7) +
                              fixed_field<std::uint64_t>(1003, 8) + varint(1004 << 3 | 3) +
                              varint_field(1, 2) + varint(1004 << 3 | 4);
  onnx::ModelProto model = small_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  onnx::AttributeProto& attribute = *graph.mutable_node(0)->add_attribute();
  attribute.set_name("a");
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(1);
  onnx::TypeProto& type = *graph.mutable_input(0)->mutable_type();
  const std::vector<google::protobuf::MessageLite*> messages{
      &model,
      &graph,
      graph.mutable_node(0),
      &attribute,
      graph.mutable_initializer(0),
      graph.mutable_input(0),
      &type,
      type.mutable_tensor_type(),
      type.mutable_tensor_type()->mutable_shape()};
  for (auto* message : messages) REQUIRE(message->MergeFromString(unknown));
  graph.mutable_initializer(0)->clear_float_data();
  graph.mutable_initializer(0)->set_raw_data(std::string(8, '\0'));
  model.add_training_info()->mutable_algorithm()->set_name("sgd");
  graph.add_quantization_annotation()->set_tensor_name("y");
  const ReadResult result = read(model);
  CHECK(result.notes.empty());
  const onnx::ModelProto again = written(*result.model);
  CHECK(again.SerializeAsString() == model.SerializeAsString());
}

TEST_CASE("unknown fields of a type go with it when another follows") {
  using onnx::TypeProto;
  const std::string unknown = varint_field(1000, 5);
  const std::string type = bytes_field(TypeProto::kSequenceTypeFieldNumber, unknown) + unknown +
                           bytes_field(TypeProto::kTensorTypeFieldNumber, unknown);
  const std::string input = bytes_field(1, "v") + bytes_field(2, type);
  const ReadResult result =
      read_bytes(small_model().SerializeAsString() + bytes_field(7, bytes_field(11, input)));
  const Type& found = result.model->graph.find("v")->type;
  CHECK(found.is_tensor());
  CHECK(found.unknown_fields == unknown + bytes_field(TypeProto::kTensorTypeFieldNumber, unknown));
}

TEST_CASE("fields of a wrong wire type are kept as unknown ones") {
  const std::string extra = varint_field(2, 5);  // producer_name as a number
  const ReadResult result = read_bytes(small_model().SerializeAsString() + extra);
  CHECK(result.model->producer_name.empty());
  CHECK(result.model->unknown_fields == extra);
}

TEST_CASE("what has no place for unknown fields drops them, with a note") {
  onnx::ModelProto model = small_model();
  auto* shape = model.mutable_graph()->mutable_input(0)->mutable_type()->mutable_tensor_type();
  REQUIRE(shape->mutable_shape()->mutable_dim(0)->MergeFromString(varint_field(1000, 1)));
  const ReadResult result = read(model);
  REQUIRE(result.notes.size() == 1);
  CHECK(result.notes[0] == "unknown fields that cannot be kept: 1 dropped");
}

TEST_CASE("fields newer than libonnx are read by number") {
  onnx::ModelProto model = small_model();
  const std::string entry = bytes_field(1, "k") + bytes_field(2, "v");
  onnx::GraphProto& graph = *model.mutable_graph();
  REQUIRE(graph.mutable_node(0)->MergeFromString(bytes_field(9, entry)));
  REQUIRE(graph.mutable_input(0)->MergeFromString(bytes_field(4, entry)));
  REQUIRE(graph.mutable_initializer(0)->MergeFromString(bytes_field(16, entry)));
  REQUIRE(graph.MergeFromString(bytes_field(16, entry)));
  const ReadResult result = read(model);
  const Metadata expected{{"k", "v"}};
  const Graph& read = result.model->graph;
  CHECK(read.metadata == expected);
  CHECK(read.nodes()[0]->metadata == expected);
  CHECK(read.inputs()[0]->metadata == expected);
  CHECK(read.find("w")->initializer()->metadata == expected);
  CHECK(structural_hash(*read_bytes(to_bytes(*result.model)).model, true) ==
        structural_hash(*result.model, true));
}

TEST_CASE("constants of a function body become Constant nodes") {
  Model model;
  model.opsets[""] = 17;
  auto function = std::make_unique<Function>();
  function->name = "f";
  function->domain = "own";
  function->opsets[""] = 17;
  Graph& body = function->body;
  Value* input = body.add_input("a", {});
  Value* weight = body.add_initializer("weight", filled(4));
  body.add_output(body.add_node({.op_type = "Mul", .inputs = {input, weight}})->output());
  model.functions.push_back(std::move(function));
  SUBCASE("in one file") {
    const ReadResult result = read_bytes(to_bytes(model));
    const Graph& read = result.model->functions[0]->body;
    CHECK(read.initializers().empty());
    REQUIRE(read.node_count() == 2);
    CHECK(read.nodes()[0]->op_type() == "Constant");
    CHECK(read.nodes()[0]->output()->name() == "weight");
  }
  SUBCASE("also where data goes outside") {
    const TemporaryFolder folder;
    const WriteResult result = write_model(
        model, folder / "m.onnx", {.external = ExternalData::always, .external_threshold = 1});
    CHECK(result.data_file.empty());
  }
  SUBCASE("which needs an operator set") {
    model.functions[0]->opsets.clear();
    CHECK_CONTAINS(error_of([&] { to_bytes(model); }), "function 'f' holds the constant 'weight'");
  }
}

TEST_CASE("constants of subgraphs become nodes up to IR 3") {
  Model model;
  model.opsets[""] = 8;
  model.ir_version = 3;
  Value* condition = model.graph.add_input("c", Type::tensor(DType::boolean, Shape{}));
  auto branch = std::make_unique<Graph>(&model.graph);
  branch->add_output(branch->add_initializer("inner", filled(1)));
  NodeSpec spec{.op_type = "If", .inputs = {condition}, .outputs = {"y"}};
  spec.attributes["then_branch"] = Attribute(std::move(branch));
  model.graph.add_output(model.graph.add_node(std::move(spec))->output());
  const auto inner = [&] { return written(model).graph().node(0).attribute(0).g(); };
  CHECK(inner().initializer_size() == 0);
  CHECK(inner().node(0).op_type() == "Constant");
  model.ir_version = 4;
  CHECK(inner().initializer_size() == 1);
  CHECK(inner().node_size() == 0);
}

TEST_CASE("large tensors are written without being gathered first") {
  Model model;
  model.opsets[""] = 17;
  Value* weight = model.graph.add_initializer("w", filled(1 << 20));
  model.graph.add_output(model.graph.add_node({.op_type = "Neg", .inputs = {weight}})->output());
  const std::string bytes = to_bytes(model);
  CHECK(bytes.size() == serialized_size(model));
  CHECK(read_bytes(bytes).model->graph.find("w")->constant()->equals(*weight->constant()));
}

TEST_CASE("files, pipes and hashes") {
  const ReadResult source = read(small_model());
  const std::string bytes = to_bytes(*source.model);
  const TemporaryFolder folder;
  const WriteResult plain = write_model(*source.model, folder / "m.onnx");
  CHECK(folder.read("m.onnx") == bytes);
  CHECK(plain.file_bytes == bytes.size());
  CHECK(plain.total_bytes == bytes.size());
  CHECK(plain.data_file.empty());
  CHECK(plain.sha256.empty());
  const std::string hash = read_model(folder / "m.onnx").sha256();
  CHECK(write_model(*source.model, folder / "m.onnx", {.hash = true}).sha256 == hash);

  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const WriteResult piped = write_model(*source.model, ends[1], true);
  ::close(ends[1]);
  std::string received(bytes.size() + 1, '\0');
  CHECK(::read(ends[0], received.data(), received.size()) == static_cast<ssize_t>(bytes.size()));
  ::close(ends[0]);
  received.pop_back();
  CHECK(received == bytes);
  CHECK(piped.sha256 == hash);
}

TEST_CASE("what cannot be written leaves nothing") {
  const ReadResult source = read(small_model());
  const TemporaryFolder folder;
  CHECK_CONTAINS(error_of([&] { write_model(*source.model, folder / "none/m.onnx"); }), "writing ");
  CHECK(folder.names().empty());
}

TEST_CASE("over 2 GB the data goes outside by itself") {
  // One shared megabyte, so that the test takes little memory: inline it is written 2100 times.
  Model model;
  model.opsets[""] = 17;
  const Tensor shared(DType::uint8, {1 << 20});
  for (int i = 0; i < 2100; ++i) model.graph.add_initializer(fmt::format("w{}", i), shared);
  CHECK(serialized_size(model) > std::size_t{2100} << 20);
  CHECK_CONTAINS(error_of([&] { to_bytes(model); }), "expected at most 2147483647 bytes");
  CHECK_CONTAINS(error_of([&] { write_model(model, STDERR_FILENO); }), "use external data");
  const TemporaryFolder folder;
  CHECK_CONTAINS(
      error_of([&] { write_model(model, folder / "m.onnx", {.external = ExternalData::never}); }),
      "use external data");
  CHECK(folder.names().empty());
  const WriteResult result = write_model(model, folder / "m.onnx");
  CHECK(result.total_bytes < std::size_t{2} << 20);
  CHECK(read_model(folder / "m.onnx").model->graph.initializers().size() == 2100);

  // The same in Constant nodes, which stay inside as long as they can.
  Model constants;
  constants.opsets[""] = 17;
  for (int i = 0; i < 2100; ++i) {
    NodeSpec spec{.op_type = "Constant"};
    spec.attributes["value"] = Attribute(shared);
    constants.graph.add_node(std::move(spec));
  }
  write_model(constants, folder / "c.onnx");
  onnx::ModelProto proto;
  REQUIRE(proto.ParseFromString(folder.read("c.onnx")));
  CHECK(proto.graph().node(0).attribute(0).t().data_location() == onnx::TensorProto::EXTERNAL);
}

TEST_CASE("a device is no place for external data") {
  Model model;
  model.graph.add_initializer("w", filled(1 << 10));
  CHECK_CONTAINS(
      error_of([&] { write_model(model, "/dev/null", {.external = ExternalData::always}); }),
      "expected a regular file to put external data beside");
}

}  // namespace onnxpress::test
