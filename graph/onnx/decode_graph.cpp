// AttributeProto, NodeProto and GraphProto.
#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "graph/onnx/decode.h"
#include "graph/onnx/fields.h"

namespace onnxpress::wire {

namespace {

using onnx::AttributeProto;
using onnx::GraphProto;
using onnx::NodeProto;

// Every value field of an AttributeProto; `type` says which one counts.
struct AttributeFields {
  int type = 0;
  std::optional<float> f;
  std::optional<std::int64_t> i;
  std::optional<std::string> s;
  std::optional<NamedTensor> t;
  std::optional<SparseTensor> sparse;
  std::optional<Type> tp;
  std::optional<GraphMessage> g;
  std::vector<float> floats;
  std::vector<std::int64_t> ints;
  std::vector<std::string> strings;
  std::vector<NamedTensor> tensors;
  std::vector<SparseTensor> sparse_tensors;
  std::vector<Type> types;
  std::vector<GraphMessage> graphs;

  // The kinds whose field is there.
  std::vector<int> present() const {
    const std::pair<int, bool> fields[] = {
        {AttributeProto::FLOAT, f.has_value()},
        {AttributeProto::INT, i.has_value()},
        {AttributeProto::STRING, s.has_value()},
        {AttributeProto::TENSOR, t.has_value()},
        {AttributeProto::GRAPH, g.has_value()},
        {AttributeProto::FLOATS, !floats.empty()},
        {AttributeProto::INTS, !ints.empty()},
        {AttributeProto::STRINGS, !strings.empty()},
        {AttributeProto::TENSORS, !tensors.empty()},
        {AttributeProto::GRAPHS, !graphs.empty()},
        {AttributeProto::SPARSE_TENSOR, sparse.has_value()},
        {AttributeProto::SPARSE_TENSORS, !sparse_tensors.empty()},
        {AttributeProto::TYPE_PROTO, tp.has_value()},
        {AttributeProto::TYPE_PROTOS, !types.empty()}};
    std::vector<int> kinds;
    for (const auto& [kind, is_there] : fields)
      if (is_there) kinds.push_back(kind);
    return kinds;
  }
};

template <class T>
T take_or_default(std::optional<T>& field) {
  return field ? std::move(*field) : T();
}

void set_value(AttributeMessage& message, AttributeFields& fields) {
  const std::vector<int> present = fields.present();
  int kind = fields.type;
  if (kind == AttributeProto::UNDEFINED && !present.empty()) kind = present.front();
  const bool matches =
      present.empty() || std::find(present.begin(), present.end(), kind) != present.end();
  require(matches, "declared as kind {}, but holds a value of kind {}", kind,
          present.empty() ? 0 : present.front());
  AttributeValue& value = message.value.value;
  switch (kind) {
    case AttributeProto::UNDEFINED:
      break;
    case AttributeProto::FLOAT:
      value = fields.f.value_or(0.0f);
      break;
    case AttributeProto::INT:
      value = fields.i.value_or(0);
      break;
    case AttributeProto::STRING:
      value = take_or_default(fields.s);
      break;
    case AttributeProto::TENSOR:
      require(fields.t.has_value(), "expected a tensor, found none");
      value = std::move(*fields.t);
      break;
    case AttributeProto::GRAPH:
      require(fields.g.has_value(), "expected a graph, found none");
      message.is_graph = true;
      message.graphs.push_back(std::move(*fields.g));
      break;
    case AttributeProto::SPARSE_TENSOR:
      require(fields.sparse.has_value(), "expected a sparse tensor, found none");
      value = std::move(*fields.sparse);
      break;
    case AttributeProto::TYPE_PROTO:
      value = take_or_default(fields.tp);
      break;
    case AttributeProto::FLOATS:
      value = std::move(fields.floats);
      break;
    case AttributeProto::INTS:
      value = std::move(fields.ints);
      break;
    case AttributeProto::STRINGS:
      value = std::move(fields.strings);
      break;
    case AttributeProto::TENSORS:
      value = std::move(fields.tensors);
      break;
    case AttributeProto::SPARSE_TENSORS:
      value = std::move(fields.sparse_tensors);
      break;
    case AttributeProto::TYPE_PROTOS:
      value = std::move(fields.types);
      break;
    case AttributeProto::GRAPHS:
      message.is_graphs = true;
      message.graphs = std::move(fields.graphs);
      break;
    default:
      fail("unknown attribute kind {}", kind);
  }
}

// Packed floats, or a single one.
void append_floats(std::span<const std::byte> bytes, std::vector<float>& floats) {
  require(bytes.size() % sizeof(float) == 0, "floats take {} bytes, not a multiple of 4",
          bytes.size());
  const std::size_t before = floats.size();
  floats.resize(before + bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(floats.data() + before, bytes.data(), bytes.size());
}

void decode_fields(Reader reader, AttributeMessage& message, DecodeContext& context) {
  AttributeFields fields;
  Attribute& attribute = message.value;
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(AttributeProto::kNameFieldNumber):
        message.name = field.string();
        break;
      case fixed32(AttributeProto::kFFieldNumber):
        fields.f = field.float32();
        break;
      case varint(AttributeProto::kIFieldNumber):
        fields.i = field.integer();
        break;
      case delimited(AttributeProto::kSFieldNumber):
        fields.s = field.string();
        break;
      case delimited(AttributeProto::kTFieldNumber):
        fields.t = decode_tensor(reader.nested(field), context);
        break;
      case delimited(AttributeProto::kGFieldNumber):
        if (!fields.g) fields.g.emplace();
        decode_graph(reader.nested(field), *fields.g, context);
        break;
      case fixed32(AttributeProto::kFloatsFieldNumber):
      case delimited(AttributeProto::kFloatsFieldNumber):
        append_floats(field.payload, fields.floats);
        break;
      case varint(AttributeProto::kIntsFieldNumber):
      case delimited(AttributeProto::kIntsFieldNumber):
        for (Reader run = reader.nested(field); !run.at_end();)
          fields.ints.push_back(static_cast<std::int64_t>(run.read_varint()));
        break;
      case delimited(AttributeProto::kStringsFieldNumber):
        fields.strings.push_back(field.string());
        break;
      case delimited(AttributeProto::kTensorsFieldNumber):
        fields.tensors.push_back(decode_tensor(reader.nested(field), context));
        break;
      case delimited(AttributeProto::kGraphsFieldNumber):
        decode_graph(reader.nested(field), fields.graphs.emplace_back(), context);
        break;
      case delimited(AttributeProto::kDocStringFieldNumber):
        attribute.doc_string = field.string();
        break;
      case delimited(AttributeProto::kTpFieldNumber):
        if (!fields.tp) fields.tp.emplace();
        decode_type(reader.nested(field), *fields.tp, context);
        break;
      case delimited(AttributeProto::kTypeProtosFieldNumber):
        decode_type(reader.nested(field), fields.types.emplace_back(), context);
        break;
      case varint(AttributeProto::kTypeFieldNumber):
        fields.type = static_cast<int>(field.value);
        break;
      case delimited(AttributeProto::kRefAttrNameFieldNumber):
        attribute.ref = field.string();
        break;
      case delimited(AttributeProto::kSparseTensorFieldNumber):
        fields.sparse = decode_sparse_tensor(reader.nested(field), context);
        break;
      case delimited(AttributeProto::kSparseTensorsFieldNumber):
        fields.sparse_tensors.push_back(decode_sparse_tensor(reader.nested(field), context));
        break;
      default:
        field.keep_in(attribute.unknown_fields);
    }
  }
  if (attribute.ref.empty()) {
    set_value(message, fields);
    return;
  }
  require(fields.present().empty(), "refers to attribute '{}' and also holds a value",
          attribute.ref);
  // The kinds leave no gap; the generated AttributeType_IsValid would be the one function linked from
  // libonnx_proto, and load libprotobuf with it.
  require(AttributeProto::AttributeType_MIN <= fields.type &&
              fields.type <= AttributeProto::AttributeType_MAX,
          "unknown attribute kind {}", fields.type);
  attribute.ref_kind = fields.type;
}

void decode_node_fields(Reader reader, NodeMessage& node, DecodeContext& context) {
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(NodeProto::kInputFieldNumber):
        node.inputs.push_back(field.text());
        break;
      case delimited(NodeProto::kOutputFieldNumber):
        node.outputs.push_back(field.text());
        break;
      case delimited(NodeProto::kNameFieldNumber):
        node.name = field.string();
        break;
      case delimited(NodeProto::kOpTypeFieldNumber):
        node.op_type = field.string();
        break;
      case delimited(NodeProto::kAttributeFieldNumber):
        node.attributes.push_back(decode_attribute(reader.nested(field), context));
        break;
      case delimited(NodeProto::kDocStringFieldNumber):
        node.doc_string = field.string();
        break;
      case delimited(NodeProto::kDomainFieldNumber):
        node.domain = field.string();
        break;
      case delimited(field::node_overload):
        node.overload = field.string();
        break;
      case delimited(field::node_metadata):
        node.metadata.push_back(decode_entry(reader.nested(field), context));
        break;
      default:
        field.keep_in(node.unknown_fields);
    }
  }
}

void decode_graph_fields(Reader reader, GraphMessage& graph, DecodeContext& context) {
  for (Field field; reader.next(field);) {
    switch (field.tag) {
      case delimited(GraphProto::kNodeFieldNumber):
        graph.nodes.push_back(decode_node(reader.nested(field), context));
        break;
      case delimited(GraphProto::kNameFieldNumber):
        graph.name = field.string();
        break;
      case delimited(GraphProto::kInitializerFieldNumber):
        graph.initializers.push_back(decode_tensor(reader.nested(field), context));
        break;
      case delimited(GraphProto::kDocStringFieldNumber):
        graph.doc_string = field.string();
        break;
      case delimited(GraphProto::kInputFieldNumber):
        graph.inputs.push_back(decode_value_info(reader.nested(field), context));
        break;
      case delimited(GraphProto::kOutputFieldNumber):
        graph.outputs.push_back(decode_value_info(reader.nested(field), context));
        break;
      case delimited(GraphProto::kValueInfoFieldNumber):
        graph.value_info.push_back(decode_value_info(reader.nested(field), context));
        break;
      case delimited(GraphProto::kSparseInitializerFieldNumber):
        graph.sparse_initializers.push_back(decode_sparse_tensor(reader.nested(field), context));
        break;
      case delimited(field::graph_metadata):
        graph.metadata.push_back(decode_entry(reader.nested(field), context));
        break;
      default:
        field.keep_in(graph.unknown_fields);
    }
  }
}

}  // namespace

std::string NodeMessage::describe() const {
  if (name.empty() && !outputs.empty())
    return fmt::format("node of '{}' ({})", outputs.front(), op_type);
  return fmt::format("node '{}' ({})", name, op_type);
}

AttributeMessage decode_attribute(Reader reader, DecodeContext& context) {
  AttributeMessage attribute;
  in_context([&] { return fmt::format("attribute '{}'", attribute.name); },
             [&] { decode_fields(reader, attribute, context); });
  require(!attribute.name.empty(), "an attribute has no name");
  return attribute;
}

NodeMessage decode_node(Reader reader, DecodeContext& context) {
  NodeMessage node;
  in_context([&] { return node.describe(); }, [&] { decode_node_fields(reader, node, context); });
  require(!node.op_type.empty(), "node '{}' has no operator type", node.name);
  if (node.domain == "ai.onnx") node.domain.clear();
  return node;
}

void decode_graph(Reader reader, GraphMessage& graph, DecodeContext& context) {
  // A graph's name comes after its nodes.
  in_context([&] { return graph.name.empty() ? "graph" : fmt::format("graph '{}'", graph.name); },
             [&] { decode_graph_fields(reader, graph, context); });
}

}  // namespace onnxpress::wire
