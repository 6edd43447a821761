// What a model must obey beyond its wire format.
#include "graph/onnx/validate.h"

#include "tests/graph/onnx/support.h"

namespace onnxpress::test {

TEST_CASE("IR versions 3 to 13") {
  onnx::ModelProto model = small_model();
  for (const int version : {3, 13}) {
    model.set_ir_version(version);
    CHECK(read(model).model->ir_version == version);
  }
  for (const int version : {-1, 0, 1, 2, 14, 100}) {
    model.set_ir_version(version);
    CHECK_CONTAINS(read_error(model),
                   fmt::format("expected an IR version from 3 to 13, found {}", version));
  }
  model.clear_ir_version();
  CHECK_CONTAINS(read_error(model), "expected an IR version from 3 to 13, found 0");
}

TEST_CASE("operator sets") {
  onnx::ModelProto model = small_model();
  model.mutable_opset_import(0)->set_domain("ai.onnx");
  CHECK(read(model).model->opsets.at("") == 17);
  model.add_opset_import()->set_version(16);
  CHECK_CONTAINS(read_error(model), "operator set 'ai.onnx' is imported at versions 17 and 16");
  model.mutable_opset_import()->DeleteSubrange(1, 1);
  for (const int version : {0, 28}) {
    model.mutable_opset_import(0)->set_version(version);
    CHECK_CONTAINS(read_error(model),
                   fmt::format("expected an ai.onnx operator set from 1 to 27, found {}", version));
  }
  model.clear_opset_import();
  CHECK_CONTAINS(read_error(model), "node 'act' (Relu): no ai.onnx operator set is imported");
  for (auto& node : *model.mutable_graph()->mutable_node()) node.set_domain("unheard.of");
  CHECK(read(model).model->graph.nodes()[0]->domain() == "unheard.of");
}

TEST_CASE("element types newer than the IR version") {
  onnx::ModelProto model = small_model();
  onnx::TensorProto& tensor = *model.mutable_graph()->add_initializer();
  tensor.set_name("packed");
  tensor.set_data_type(22);  // int4
  tensor.add_dims(2);
  tensor.set_raw_data("\x21");
  CHECK_CONTAINS(read_error(model), "int4 needs IR version 10, the model has 8");
  model.set_ir_version(10);
  CHECK(read(model).model->graph.find("packed")->constant()->to_ints() ==
        std::vector<std::int64_t>{1, 2});
  auto* type = model.mutable_graph()->mutable_output(0)->mutable_type()->mutable_tensor_type();
  type->set_elem_type(77);
  CHECK_CONTAINS(read_error(model), "type of 'z': unknown element type 77");
}

TEST_CASE("references to function attributes are for functions") {
  onnx::ModelProto model = small_model();
  onnx::AttributeProto& attribute = *model.mutable_graph()->mutable_node(0)->add_attribute();
  attribute.set_name("a");
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_ref_attr_name("b");
  CHECK_CONTAINS(read_error(model), "attribute 'a': refers to attribute 'b' outside a function");
}

TEST_CASE("a model made by hand can be checked before it is written") {
  Model model;
  model.opsets[""] = 17;
  Value* input = model.graph.add_input("x", Type::tensor(DType::float32, {2}));
  Node* node = model.graph.add_node({.op_type = "Relu", .inputs = {input}, .outputs = {"y"}});
  model.graph.add_output(node->output());
  validate(model);
  model.ir_version = 2;
  CHECK_CONTAINS(error_of([&] { validate(model); }), "expected an IR version");
}

}  // namespace onnxpress::test
