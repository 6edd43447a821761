#include "graph/ir/parse.h"

#include <algorithm>
#include <map>
#include <optional>

#include "graph/ir/parse_literal.h"
#include "graph/ir/text.h"

namespace onnxpress {
namespace {

using text::Lexer;

// "com.example.Op:overload".
struct OperatorName {
  std::string domain, op_type, overload;
};

OperatorName split_operator(const std::string& whole) {
  OperatorName result;
  const std::size_t dot = whole.rfind('.');
  std::string rest = whole;
  if (dot != std::string::npos) {
    result.domain = whole.substr(0, dot);
    rest = whole.substr(dot + 1);
  }
  const std::size_t colon = rest.find(':');
  result.op_type = rest.substr(0, colon);
  if (colon != std::string::npos) result.overload = rest.substr(colon + 1);
  return result;
}

class Parser {
 public:
  explicit Parser(std::string_view source) : lexer_(source) {}

  std::unique_ptr<Model> parse() {
    auto model = std::make_unique<Model>();
    model->graph.name = "graph";
    located([&] { read_header(*model); });
    while (!lexer_.at_end()) {
      located([&] {
        if (accept_keyword("metadata"))
          read_metadata(*model);
        else if (accept_keyword("function"))
          read_function(*model);
        else
          read_statement(model->graph);
      });
    }
    return model;
  }

 private:
  // Errors get the line; those of inner lines have it already.
  template <class Body>
  void located(Body body) {
    try {
      body();
    } catch (Error& error) {
      if (error.trail().empty()) error.within(fmt::format("line {}", lexer_.line()));
      throw;
    }
  }

  void end_line() {
    if (!lexer_.at_line_end()) lexer_.fail_expecting("the end of the line");
  }

  // A word that a name follows; otherwise it may be the name of a node's output.
  bool accept_keyword(std::string_view keyword) {
    const std::size_t start = lexer_.position();
    if (lexer_.accept_word(keyword)) {
      const char next = lexer_.peek_on_line();
      if (next == '"' || (next != ':' && text::is_name_char(next))) return true;
    }
    lexer_.rewind(start);
    return false;
  }

  void read_header(Model& model) {
    if (!accept_keyword("model")) lexer_.fail_expecting("a line 'model ir=... opset=...'");
    while (!lexer_.at_line_end()) {
      const std::string key = lexer_.name();
      lexer_.expect('=');
      (key == "ir" ? model.ir_version : opset_named(model.opsets, key)) = lexer_.integer();
    }
  }

  static std::int64_t& opset_named(OpsetImports& opsets, const std::string& key) {
    return opsets[key == "opset" || key == "ai.onnx" ? "" : key];
  }

  void read_metadata(Model& model) {
    std::string key = lexer_.quoted();
    lexer_.expect('=');
    model.metadata.emplace_back(std::move(key), lexer_.quoted());
    end_line();
  }

  void read_function(Model& model) {
    auto function = std::make_unique<Function>();
    OperatorName op = split_operator(lexer_.name());
    function->domain = std::move(op.domain);
    function->name = std::move(op.op_type);
    function->overload = std::move(op.overload);
    function->body.name = function->name;
    lexer_.expect('(');
    if (lexer_.peek() != ')') {
      do {
        std::string parameter = lexer_.name();
        if (lexer_.accept('=')) {
          Attribute value = read_attribute(function->body, parameter);
          function->attribute_defaults.emplace_back(std::move(parameter), std::move(value));
        } else {
          function->attribute_names.push_back(std::move(parameter));
        }
      } while (lexer_.accept(','));
    }
    lexer_.expect(')');
    while (lexer_.peek_on_line() != '{') {
      const std::string key = lexer_.name();
      lexer_.expect('=');
      opset_named(function->opsets, key) = lexer_.integer();
    }
    read_braced(function->body);
    model.functions.push_back(std::move(function));
    end_line();
  }

  void read_braced(Graph& graph) {
    lexer_.expect('{');
    while (lexer_.peek() != '}') {
      if (lexer_.at_end()) lexer_.fail_expecting("'}'");
      located([&] { read_statement(graph); });
    }
    lexer_.expect('}');
  }

  void read_statement(Graph& graph) {
    if (accept_keyword("input"))
      read_input(graph);
    else if (accept_keyword("initializer"))
      read_initializer(graph);
    else if (accept_keyword("output"))
      read_output(graph);
    else
      read_node(graph);
    end_line();
  }

  Type read_optional_type() { return lexer_.accept(':') ? text::read_type(lexer_) : Type(); }

  static void declare(Value* value, Type type) {
    if (type.kind == Type::Kind::unknown) return;
    value->type = std::move(type);
    value->type_in_file = true;
  }

  // A whole literal, or the contents of a tensor of the declared type.
  Initializer read_value(const Type& declared) {
    Initializer result;
    if (lexer_.accept_word("sparse")) {
      result.sparse = std::make_unique<SparseTensor>(text::read_sparse(lexer_));
    } else if (is_literal()) {
      result.tensor = text::read_tensor(lexer_);
    } else {
      const std::optional<Dims> dims =
          declared.is_tensor() && declared.shape ? concrete(*declared.shape) : std::nullopt;
      require(dims.has_value(), "a value of type {} needs its element type and shape",
              to_string(declared));
      result.tensor = text::read_contents(lexer_, declared.elem, *dims);
    }
    return result;
  }

  bool is_literal() {
    const std::size_t start = lexer_.position();
    const bool result = dtype_from_name(lexer_.word()).has_value();
    lexer_.rewind(start);
    return result;
  }

  void read_input(Graph& graph) {
    std::string name = lexer_.name();
    Type type = read_optional_type();
    Value* input = graph.add_input(std::move(name), type);
    input->type_in_file = true;
    if (lexer_.accept('=')) graph.set_default(input, read_value(type));
  }

  void read_initializer(Graph& graph) {
    std::string name = lexer_.name();
    const Type declared = read_optional_type();
    lexer_.expect('=');
    graph.add_initializer(std::move(name), read_value(declared));
  }

  void read_output(Graph& graph) {
    Value* value = visible(graph, lexer_.name());
    declare(value, read_optional_type());
    value->type_in_file = true;
    graph.add_output(value);
  }

  static Value* visible(const Graph& graph, const std::string& name) {
    Value* value = graph.find_visible(name);
    require(value != nullptr, "no value is named '{}'", name);
    return value;
  }

  // "_" is omitted; "\"_\"" is a name.
  bool accept_omitted() {
    const std::size_t start = lexer_.position();
    if (lexer_.peek() != '"' && lexer_.name() == "_") return true;
    lexer_.rewind(start);
    return false;
  }

  void read_node(Graph& graph) {
    NodeSpec spec;
    spec.outputs.clear();
    std::vector<Type> types;
    if (lexer_.accept('(')) {
      lexer_.expect(')');
    } else {
      do {
        if (accept_omitted()) {
          spec.omitted_outputs.push_back(spec.outputs.size());
          spec.outputs.emplace_back();
        } else {
          spec.outputs.push_back(lexer_.name());
        }
        types.push_back(read_optional_type());
      } while (lexer_.accept(','));
    }
    lexer_.expect('=');
    OperatorName op = split_operator(lexer_.name());
    spec.domain = std::move(op.domain);
    spec.op_type = std::move(op.op_type);
    spec.overload = std::move(op.overload);
    read_inputs(graph, spec);
    if (lexer_.peek_on_line() == '{') read_attributes(graph, spec);
    if (lexer_.peek_on_line() == '"') spec.name = lexer_.quoted();
    const Node* node = graph.add_node(std::move(spec));
    for (std::size_t i = 0; i < types.size(); ++i)
      if (node->output(i)) declare(node->output(i), std::move(types[i]));
  }

  void read_inputs(const Graph& graph, NodeSpec& spec) {
    lexer_.expect('(');
    if (lexer_.accept(')')) return;
    do {
      spec.inputs.push_back(accept_omitted() ? nullptr : visible(graph, lexer_.name()));
    } while (lexer_.accept(','));
    lexer_.expect(')');
  }

  void read_attributes(Graph& graph, NodeSpec& spec) {
    lexer_.expect('{');
    if (lexer_.accept('}')) return;
    do {
      const std::string key = lexer_.name();
      lexer_.expect('=');
      require(!spec.attributes.contains(key), "duplicate attribute '{}'", key);
      spec.attributes.emplace(key, read_attribute(graph, key));
    } while (lexer_.accept(','));
    lexer_.expect('}');
  }

  // The value of an attribute of a node of `graph`.
  Attribute read_attribute(Graph& graph, const std::string& key) {
    Attribute attribute;
    if (lexer_.accept('@')) {
      attribute.ref = lexer_.name();
      lexer_.expect('(');
      const auto kind = std::ranges::find(text::kAttributeKinds, lexer_.word());
      require(kind != text::kAttributeKinds.end(), "unknown attribute kind");
      attribute.ref_kind = static_cast<int>(kind - text::kAttributeKinds.begin());
      lexer_.expect(')');
    } else if (lexer_.accept('[')) {
      attribute.value = read_list(graph, key);
    } else if (std::optional<AttributeValue> list = accept_empty_list()) {
      attribute.value = std::move(*list);
    } else if (!lexer_.accept_word("none")) {
      attribute.value = read_item(graph, key);
    }
    return attribute;
  }

  template <class T>
  static AttributeValue empty() {
    return std::vector<T>();
  }

  // "ints[]" and its like.
  std::optional<AttributeValue> accept_empty_list() {
    static const std::map<std::string_view, AttributeValue (*)()> lists{
        {"floats", empty<float>},
        {"ints", empty<std::int64_t>},
        {"strings", empty<std::string>},
        {"tensors", empty<NamedTensor>},
        {"graphs", empty<std::unique_ptr<Graph>>},
        {"sparses", empty<SparseTensor>},
        {"types", empty<Type>}};
    const std::size_t start = lexer_.position();
    const auto list = lists.find(lexer_.word());
    if (list != lists.end() && lexer_.accept('[') && lexer_.accept(']')) return list->second();
    lexer_.rewind(start);
    return std::nullopt;
  }

  // One number, text, tensor, graph, sparse tensor or type.
  AttributeValue read_item(Graph& graph, const std::string& key) {
    if (lexer_.peek() == '"') return lexer_.quoted();
    if (lexer_.accept_word("graph")) return read_subgraph(graph, key);
    if (lexer_.accept_word("type")) return text::read_type(lexer_);
    if (lexer_.accept_word("sparse")) return text::read_sparse(lexer_);
    if (is_literal()) return NamedTensor{.tensor = text::read_tensor(lexer_)};
    const std::string number = lexer_.number_text();
    if (number.empty()) lexer_.fail_expecting("an attribute's value");
    if (number.find_first_not_of("+-0123456789") == std::string::npos)
      return text::to_number<std::int64_t>(number);
    return text::to_number<float>(number);
  }

  std::unique_ptr<Graph> read_subgraph(Graph& graph, const std::string& key) {
    auto subgraph = std::make_unique<Graph>(&graph);
    subgraph->name = lexer_.peek() == '"' ? lexer_.quoted() : key;
    read_braced(*subgraph);
    return subgraph;
  }

  // What follows the bracket: items of one kind, integers among floats being floats.
  AttributeValue read_list(Graph& graph, const std::string& key) {
    std::vector<AttributeValue> items;
    do {
      items.push_back(read_item(graph, key));
    } while (lexer_.accept(','));
    lexer_.expect(']');
    const auto is_real = [](const AttributeValue& item) {
      return std::holds_alternative<float>(item);
    };
    if (std::ranges::any_of(items, is_real))
      for (AttributeValue& item : items)
        if (const auto* integer = std::get_if<std::int64_t>(&item))
          item = static_cast<float>(*integer);
    return std::visit(
        [&]<class T>(const T&) -> AttributeValue {
          if constexpr (std::is_constructible_v<AttributeValue, std::vector<T>>) {
            std::vector<T> list;
            for (AttributeValue& item : items) {
              require(std::holds_alternative<T>(item), "the items of a list differ in kind");
              list.push_back(std::move(std::get<T>(item)));
            }
            return list;
          } else {
            fail("lists of lists are not attributes");
          }
        },
        items.front());
  }

  Lexer lexer_;
};

}  // namespace

std::unique_ptr<Model> parse_model(std::string_view source) { return Parser(source).parse(); }

}  // namespace onnxpress
