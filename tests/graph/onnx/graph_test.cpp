// Names, edges, subgraphs, functions and attributes as read.
#include <algorithm>

#include "tests/graph/onnx/support.h"

namespace onnxpress::test {

namespace {

const Attribute& attribute_of(const Model& model, const std::string& node_name,
                              const std::string& attribute) {
  for (const Node* node : model.graph.nodes())
    if (node->name == node_name) return *node->attribute(attribute);
  FAIL("no such node");
  throw 0;
}

std::vector<std::string> op_types(const Graph& graph) {
  std::vector<std::string> types;
  for (const Node* node : graph.nodes()) types.push_back(node->op_type());
  return types;
}

// If with two branches that read outer values.
onnx::GraphProto& add_branch(onnx::NodeProto& node, const std::string& name,
                             const std::string& op_type, const std::string& input,
                             const std::string& output) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::GRAPH);
  onnx::GraphProto& graph = *attribute.mutable_g();
  graph.set_name(name);
  add_node(graph, op_type, {input}, {output});
  graph.add_output()->set_name(output);
  return graph;
}

onnx::NodeProto& add_if(onnx::GraphProto& graph, const std::string& output) {
  onnx::TensorProto& condition = *graph.add_initializer();
  condition.set_name("condition_" + output);
  condition.set_data_type(onnx::TensorProto::BOOL);
  condition.add_int32_data(1);
  return add_node(graph, "If", {condition.name()}, {output});
}

}  // namespace

TEST_CASE("a small model becomes values and edges") {
  const ReadResult result = read(small_model());
  const Graph& graph = result.model->graph;
  CHECK(result.model->ir_version == 8);
  CHECK(result.model->opsets.at("") == 17);
  CHECK(op_types(graph) == std::vector<std::string>{"Relu", "Add"});
  REQUIRE(graph.inputs().size() == 1);
  CHECK(graph.inputs()[0]->type == Type::tensor(DType::float32, {2}));
  const Node* sum = graph.nodes()[1];
  CHECK(sum->name == "sum");
  CHECK(sum->input(0)->producer() == graph.nodes()[0]);
  CHECK(sum->input(1)->constant()->to_floats() == std::vector<float>{1.5f, -2.0f});
  CHECK(graph.outputs()[0] == sum->output());
  CHECK(result.notes.empty());
  CHECK(result.file_bytes == small_model().ByteSizeLong());
  CHECK(result.total_bytes == result.file_bytes);
  CHECK_FALSE(result.model->external_data);
}

TEST_CASE("SHA-256 of what was read") {
  const ReadResult result = read(small_model());
  CHECK(result.sha256().size() == 64);
  CHECK(result.sha256() == read(small_model()).sha256());
  onnx::ModelProto other = small_model();
  other.set_producer_name("other");
  CHECK(result.sha256() != read(other).sha256());
}

TEST_CASE("omitted inputs and outputs") {
  onnx::ModelProto model = small_model();
  add_node(*model.mutable_graph(), "Clip", {"x", "", "w"}, {"clipped"});
  add_node(*model.mutable_graph(), "Dropout", {"x", "", ""}, {"dropped", ""});
  const ReadResult result = read(model);
  const Node* clip = result.model->graph.nodes()[2];
  CHECK(clip->input_count() == 3);
  CHECK(clip->input(1) == nullptr);
  const Node* dropout = result.model->graph.nodes()[3];
  CHECK(dropout->input_count() == 1);
  CHECK(dropout->output_count() == 2);
  CHECK(dropout->output(1) == nullptr);
}

TEST_CASE("nodes out of order are sorted, with a note") {
  onnx::ModelProto model = small_model();
  model.mutable_graph()->mutable_node()->SwapElements(0, 1);
  const ReadResult result = read(model);
  CHECK(op_types(result.model->graph) == std::vector<std::string>{"Relu", "Add"});
  REQUIRE(result.notes.size() == 1);
  CHECK_CONTAINS(result.notes[0], "nodes of graph 'main' were not in topological order");
}

TEST_CASE("wrong edges and names are refused") {
  SUBCASE("an input that nothing produces") {
    onnx::ModelProto model = small_model();
    model.mutable_graph()->mutable_node(1)->set_input(1, "v");
    CHECK_CONTAINS(read_error(model),
                   "graph 'main' / node 'sum' (Add): input 'v' is not produced by any node, input "
                   "or initializer");
  }
  SUBCASE("an output that nothing produces") {
    onnx::ModelProto model = small_model();
    model.mutable_graph()->add_output()->set_name("v");
    CHECK_CONTAINS(read_error(model), "output 'v' is not produced");
  }
  SUBCASE("a cycle") {
    onnx::ModelProto model = small_model();
    model.mutable_graph()->mutable_node(0)->set_input(0, "z");
    const std::string error = read_error(model);
    CHECK_CONTAINS(error, "cycle");
    CHECK((contains(error, "'act'") || contains(error, "'sum'")));
  }
  SUBCASE("a node that reads itself") {
    onnx::ModelProto model = small_model();
    model.mutable_graph()->mutable_node(0)->set_input(0, "y");
    CHECK_CONTAINS(read_error(model), "cycle");
  }
  SUBCASE("the same name twice") {
    const auto duplicate = [](auto&& change) {
      onnx::ModelProto model = small_model();
      change(*model.mutable_graph());
      return read_error(model, {.keep_overridable = true});
    };
    CHECK_CONTAINS(duplicate([](auto& graph) { add_node(graph, "Neg", {"x"}, {"y"}); }),
                   "duplicate value name 'y'");
    CHECK_CONTAINS(duplicate([](auto& graph) { add_node(graph, "Neg", {"x"}, {"x"}); }),
                   "duplicate value name 'x'");
    CHECK_CONTAINS(duplicate([](auto& graph) { add_node(graph, "Split", {"x"}, {"a", "a"}); }),
                   "duplicate value name 'a'");
    CHECK_CONTAINS(duplicate([](auto& graph) { add_float_value(*graph.add_input(), "x", {2}); }),
                   "duplicate value name 'x'");
    CHECK_CONTAINS(
        duplicate([](auto& graph) { add_float_tensor(*graph.add_initializer(), "w", {1}); }),
        "'w'");
    CHECK_CONTAINS(
        duplicate([](auto& graph) { add_float_tensor(*graph.add_initializer(), "", {1}); }),
        "no name");
  }
  SUBCASE("attributes") {
    onnx::ModelProto model = small_model();
    onnx::NodeProto& node = *model.mutable_graph()->mutable_node(0);
    onnx::AttributeProto& attribute = *node.add_attribute();
    attribute.set_name("a");
    attribute.set_type(onnx::AttributeProto::INT);
    attribute.set_f(1.0f);
    CHECK_CONTAINS(read_error(model), "node 'act' (Relu) / attribute 'a': declared as kind 2");
    attribute.clear_f();
    *node.add_attribute() = attribute;
    CHECK_CONTAINS(read_error(model), "duplicate attribute 'a'");
  }
}

TEST_CASE("initializers that are also inputs") {
  onnx::ModelProto model = small_model();
  add_float_value(*model.mutable_graph()->add_input(), "w", {2});
  SUBCASE("become constants, with a note from IR 4 on") {
    const ReadResult result = read(model);
    CHECK(result.model->graph.inputs().size() == 1);
    CHECK(result.model->graph.find("w")->is_constant());
    REQUIRE(result.notes.size() == 1);
    CHECK(result.notes[0] == "1 initializer was also an input: now a constant");
  }
  SUBCASE("need no note up to IR 3, and are inputs again when written") {
    model.set_ir_version(3);
    const ReadResult result = read(model);
    CHECK(result.notes.empty());
    CHECK(result.model->graph.find("w")->is_constant());
    const onnx::ModelProto again = written(*result.model);
    REQUIRE(again.graph().input_size() == 2);
    CHECK(again.graph().input(1).SerializeAsString() == model.graph().input(1).SerializeAsString());
  }
  SUBCASE("stay inputs with a default when asked") {
    const ReadResult result = read(model, {.keep_overridable = true});
    const Value* value = result.model->graph.find("w");
    CHECK(value->is_input());
    CHECK(value->initializer() != nullptr);
    CHECK_FALSE(value->is_constant());
    const onnx::ModelProto again = written(*result.model);
    CHECK(again.graph().input_size() == 2);
    CHECK(again.graph().initializer_size() == 1);
  }
  SUBCASE("must have the declared element type") {
    auto* type = model.mutable_graph()->mutable_input(1)->mutable_type()->mutable_tensor_type();
    type->set_elem_type(onnx::TensorProto::INT64);
    CHECK_CONTAINS(read_error(model, {.keep_overridable = true}),
                   "initializer 'w': declared as int64, but holds float32");
    CHECK(read(model).notes.size() == 2);
  }
  SUBCASE("keep what only an input can say") {
    model.mutable_graph()->mutable_input(1)->set_doc_string("weights");
    const ReadResult result = read(model);
    const onnx::ModelProto again = written(*result.model);
    REQUIRE(again.graph().value_info_size() == 1);
    CHECK(again.graph().value_info(0).doc_string() == "weights");
  }
}

TEST_CASE("subgraphs read outer values, also ones defined later in the file") {
  onnx::ModelProto model = small_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  onnx::NodeProto& node = add_if(graph, "chosen");
  add_branch(node, "then_branch", "Neg", "late", "out");
  add_branch(node, "else_branch", "Abs", "x", "out");
  add_node(graph, "Exp", {"x"}, {"late"});
  const ReadResult result = read(model);
  CHECK(op_types(result.model->graph) == std::vector<std::string>{"Relu", "Add", "Exp", "If"});
  const Node* chosen = result.model->graph.nodes()[3];
  CHECK(chosen->captured().size() == 2);
  CHECK(result.notes.size() == 1);
}

TEST_CASE("a cycle through a subgraph is found") {
  onnx::ModelProto model = small_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  add_branch(add_if(graph, "chosen"), "then_branch", "Neg", "after", "out");
  add_node(graph, "Exp", {"chosen"}, {"after"});
  CHECK_CONTAINS(read_error(model), "cycle");
}

TEST_CASE("a subgraph may use an outer name for a value of its own") {
  onnx::ModelProto model = small_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  onnx::NodeProto& node = add_if(graph, "chosen");
  onnx::GraphProto& branch = add_branch(node, "then_branch", "Neg", "x", "y");
  add_node(branch, "Exp", {"y"}, {"inner"});
  add_branch(node, "else_branch", "Abs", "x", "later");
  add_node(graph, "Identity", {"x"}, {"later"});
  const ReadResult result = read(model);
  const Graph* then_branch = nullptr;
  for (const Node* candidate : result.model->graph.nodes())
    if (candidate->op_type() == "If") then_branch = candidate->subgraphs()[1];
  REQUIRE(then_branch != nullptr);
  REQUIRE(then_branch->name == "then_branch");
  const Node* exp = then_branch->nodes()[1];
  CHECK(&exp->input(0)->graph() == then_branch);
  CHECK(structural_hash(*read(written(*result.model)).model, true) ==
        structural_hash(*result.model, true));
}

TEST_CASE("a subgraph may give out a value of the graph around it") {
  onnx::ModelProto model = small_model();
  onnx::NodeProto& node = add_if(*model.mutable_graph(), "chosen");
  onnx::GraphProto& branch = add_branch(node, "then_branch", "Neg", "x", "out");
  branch.clear_node();
  branch.mutable_output(0)->set_name("y");
  const ReadResult result = read(model);
  CHECK(result.model->graph.find("y")->is_output());
  CHECK(written(*result.model).graph().node(2).attribute(0).g().output(0).name() == "y");
}

TEST_CASE("attributes of every kind survive") {
  onnx::ModelProto model = small_model();
  onnx::NodeProto& node = *model.mutable_graph()->mutable_node(0);
  const auto add = [&](const std::string& name, onnx::AttributeProto::AttributeType type) {
    onnx::AttributeProto& attribute = *node.add_attribute();
    attribute.set_name(name);
    attribute.set_type(type);
    return &attribute;
  };
  using Proto = onnx::AttributeProto;
  add("float", Proto::FLOAT)->set_f(-0.5f);
  add("int", Proto::INT)->set_i(-7);
  add("string", Proto::STRING)->set_s(std::string("a\0b", 3));
  add_float_tensor(*add("tensor", Proto::TENSOR)->mutable_t(), "t", {1, 2});
  Proto* floats = add("floats", Proto::FLOATS);
  floats->add_floats(1);
  floats->add_floats(2);
  Proto* ints = add("ints", Proto::INTS);
  ints->add_ints(-1);
  ints->add_ints(std::int64_t{1} << 40);
  add("strings", Proto::STRINGS)->add_strings("one");
  add_float_tensor(*add("tensors", Proto::TENSORS)->add_tensors(), "u", {3});
  add("type", Proto::TYPE_PROTO)->mutable_tp()->mutable_tensor_type()->set_elem_type(7);
  add("types", Proto::TYPE_PROTOS)
      ->add_type_protos()
      ->mutable_sequence_type()
      ->mutable_elem_type()
      ->mutable_tensor_type()
      ->set_elem_type(1);
  onnx::SparseTensorProto& sparse = *add("sparse", Proto::SPARSE_TENSOR)->mutable_sparse_tensor();
  add_float_tensor(*sparse.mutable_values(), "s", {5});
  sparse.mutable_indices()->set_data_type(onnx::TensorProto::INT64);
  sparse.mutable_indices()->add_dims(1);
  sparse.mutable_indices()->add_int64_data(2);
  sparse.add_dims(4);
  *add("sparse_list", Proto::SPARSE_TENSORS)->add_sparse_tensors() = sparse;
  onnx::GraphProto& inner = *add("graph", Proto::GRAPH)->mutable_g();
  inner.set_name("inner");
  add_node(inner, "Neg", {"x"}, {"negative"});
  *add("graphs", Proto::GRAPHS)->add_graphs() = inner;
  add("empty", Proto::INTS);
  Proto* documented = add("documented", Proto::INT);
  documented->set_i(0);
  documented->set_doc_string("why");

  const ReadResult result = read(model);
  const auto kind = [&](const std::string& name) {
    return attribute_of(*result.model, "act", name).kind();
  };
  for (const onnx::AttributeProto& attribute : node.attribute())
    CHECK(kind(attribute.name()) == attribute.type());
  CHECK(std::get<SparseTensor>(attribute_of(*result.model, "act", "sparse").value)
            .dense()
            .to_floats() == std::vector<float>{0, 0, 5, 0});

  const onnx::ModelProto again = written(*result.model);
  for (const onnx::AttributeProto& attribute : again.graph().node(0).attribute()) {
    CAPTURE(attribute.name());
    const auto original = std::ranges::find(node.attribute(), attribute.name(),
                                            [](const auto& one) { return one.name(); });
    REQUIRE(original != node.attribute().end());
    if (attribute.name().find("tensor") == std::string::npos &&
        attribute.name().find("sparse") == std::string::npos)
      CHECK(attribute.SerializeAsString() == original->SerializeAsString());
  }
  CHECK(structural_hash(*read(again).model, true) == structural_hash(*result.model, true));
}

TEST_CASE("an attribute without a kind has the kind of its value") {
  onnx::ModelProto model = small_model();
  onnx::AttributeProto& attribute = *model.mutable_graph()->mutable_node(0)->add_attribute();
  attribute.set_name("a");
  attribute.add_ints(3);
  CHECK(attribute_of(*read(model).model, "act", "a").kind() == onnx::AttributeProto::INTS);
}

TEST_CASE("functions with attributes by reference, overloads and defaults") {
  onnx::ModelProto model = small_model();
  onnx::OperatorSetIdProto& own = *model.add_opset_import();
  own.set_domain("own");
  own.set_version(1);
  onnx::FunctionProto& function = *model.add_functions();
  function.set_domain("own");
  function.set_name("Scaled");
  function.add_input("a");
  function.add_output("b");
  function.add_attribute("alpha");
  function.add_opset_import()->set_version(16);
  onnx::NodeProto& body = *function.add_node();
  body.set_op_type("LeakyRelu");
  body.add_input("a");
  body.add_output("b");
  onnx::AttributeProto& alpha = *body.add_attribute();
  alpha.set_name("alpha");
  alpha.set_ref_attr_name("alpha");
  alpha.set_type(onnx::AttributeProto::FLOAT);
  onnx::NodeProto& call = add_node(*model.mutable_graph(), "Scaled", {"z"}, {"scaled"});
  call.set_domain("own");

  SUBCASE("as libonnx knows them") {
    const ReadResult result = read(model);
    const Function& read = *result.model->functions.at(0);
    CHECK(read.opsets.at("") == 16);
    const Attribute& reference = *read.body.nodes()[0]->attribute("alpha");
    CHECK(reference.ref == "alpha");
    CHECK(reference.kind() == onnx::AttributeProto::FLOAT);
    CHECK(result.model->function(*result.model->graph.nodes()[2]) == &read);
    CHECK(written(*result.model).functions(0).SerializeAsString() == function.SerializeAsString());
  }
  SUBCASE("with fields newer than that") {
    onnx::AttributeProto fallback;
    fallback.set_name("beta");
    fallback.set_type(onnx::AttributeProto::INT);
    fallback.set_i(3);
    const std::string newer = bytes_field(11, fallback.SerializeAsString()) +
                              bytes_field(13, "fast") +
                              bytes_field(14, bytes_field(1, "k") + bytes_field(2, "v"));
    REQUIRE(function.MergeFromString(newer));
    REQUIRE(call.MergeFromString(bytes_field(8, "fast")));
    const ReadResult result = read(model);
    const Function& read = *result.model->functions.at(0);
    CHECK(read.overload == "fast");
    REQUIRE(read.attribute_defaults.size() == 1);
    CHECK(read.attribute_defaults[0].first == "beta");
    CHECK(read.metadata == Metadata{{"k", "v"}});
    CHECK(result.model->function(*result.model->graph.nodes()[2]) == &read);
    CHECK(written(*result.model).functions(0).SerializeAsString() == function.SerializeAsString());
  }
  SUBCASE("an attribute that is not declared") {
    function.clear_attribute();
    CHECK_CONTAINS(read_error(model), "function 'Scaled' does not declare");
  }
  SUBCASE("twice") {
    *model.add_functions() = model.functions(0);
    CHECK_CONTAINS(read_error(model), "function 'Scaled' is defined twice");
  }
  SUBCASE("that call themselves") {
    body.set_op_type("Scaled");
    body.set_domain("own");
    CHECK_CONTAINS(read_error(model), "function 'Scaled' calls itself");
  }
}

TEST_CASE("sparse initializers") {
  onnx::ModelProto model = small_model();
  onnx::SparseTensorProto& sparse = *model.mutable_graph()->add_sparse_initializer();
  add_float_tensor(*sparse.mutable_values(), "s", {5, 6});
  sparse.mutable_indices()->set_data_type(onnx::TensorProto::INT64);
  sparse.mutable_indices()->add_dims(2);
  sparse.mutable_indices()->add_dims(2);
  for (const int index : {0, 1, 1, 0}) sparse.mutable_indices()->add_int64_data(index);
  sparse.add_dims(2);
  sparse.add_dims(2);
  add_node(*model.mutable_graph(), "Neg", {"s"}, {"n"});
  SUBCASE("survive") {
    const ReadResult result = read(model);
    const Value* value = result.model->graph.find("s");
    REQUIRE(value->is_constant());
    CHECK(value->initializer()->dense().to_floats() == std::vector<float>{0, 5, 6, 0});
    const onnx::ModelProto again = written(*result.model);
    REQUIRE(again.graph().sparse_initializer_size() == 1);
    CHECK(again.graph().sparse_initializer(0).values().name() == "s");
    CHECK(structural_hash(*read(again).model, true) == structural_hash(*result.model, true));
  }
  SUBCASE("with indices of a wrong shape are refused") {
    sparse.mutable_indices()->set_dims(0, 1);
    sparse.mutable_indices()->set_dims(1, 4);
    CHECK_CONTAINS(read_error(model), "initializer 's': sparse indices: expected int64[2]");
  }
}

TEST_CASE("declared types inside, and those of values that are not there") {
  onnx::ModelProto model = small_model();
  add_float_value(*model.mutable_graph()->add_value_info(), "y", {2});
  add_float_value(*model.mutable_graph()->add_value_info(), "gone", {2});
  add_float_value(*model.mutable_graph()->add_value_info(), "w", {3});
  const ReadResult result = read(model);
  CHECK(result.model->graph.find("y")->type_in_file);
  CHECK(result.model->graph.find("w")->type == Type::tensor(DType::float32, {2}));
  REQUIRE(result.notes.size() == 2);
  CHECK_CONTAINS(result.notes[0], "1 type was declared for a value that is not there");
  CHECK_CONTAINS(result.notes[1], "1 declared type contradicted its initializer");
  const onnx::ModelProto again = written(*result.model);
  REQUIRE(again.graph().value_info_size() == 2);
  CHECK(again.graph().value_info(0).name() == "w");
  CHECK(again.graph().value_info(1).name() == "y");
}

}  // namespace onnxpress::test
