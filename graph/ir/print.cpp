#include <algorithm>
#include <cctype>
#include <iterator>

#include <fmt/ranges.h>

#include "graph/ir/model.h"
#include "graph/ir/text.h"

namespace onnxpress {
namespace text {

bool is_name_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("_./:-").find(c) != std::string_view::npos;
}

std::string name_text(std::string_view name) {
  const bool bare =
      !name.empty() && name != "_" && name.back() != ':' && std::ranges::all_of(name, is_name_char);
  return bare ? std::string(name) : quoted(name);
}

}  // namespace text

namespace {

using text::name_text;

constexpr std::int64_t kPrintedElements = 8;

std::string float_text(float value) {
  std::string digits = fmt::format("{}", value);
  if (digits.find_first_of(".en") == std::string::npos) digits += ".0";
  return digits;
}

std::string contents_hash(const Tensor& tensor) {
  Hasher hasher;
  if (tensor.dtype() == DType::string)
    for (const std::string& element : tensor.strings()) hasher.add(element);
  else
    hasher.add_bytes(tensor.bytes());
  return hasher.finish().hex().substr(0, 8);
}

// "{1,2,3}"; large and complex tensors: "{#89abcdef}".
std::string contents_text(const Tensor& tensor) {
  const DType type = tensor.dtype();
  if (tensor.size() > kPrintedElements || is_complex(type) || !tensor.defined())
    return fmt::format("{{#{}}}", contents_hash(tensor));
  std::vector<std::string> elements;
  if (type == DType::string)
    std::ranges::transform(tensor.strings(), std::back_inserter(elements), quoted);
  else if (type == DType::uint64)
    for (const std::uint64_t element : tensor.data<std::uint64_t>())
      elements.push_back(fmt::format("{}", element));
  else if (type == DType::float64)
    for (const double element : tensor.data<double>())
      elements.push_back(fmt::format("{}", element));
  else if (is_float(type))
    for (const float element : tensor.to_floats()) elements.push_back(fmt::format("{}", element));
  else
    for (const std::int64_t element : tensor.to_ints())
      elements.push_back(fmt::format("{}", element));
  return fmt::format("{{{}}}", fmt::join(elements, ","));
}

std::string type_of_tensor(const Tensor& tensor) {
  return fmt::format("{}{}", name(tensor.dtype()), to_string(tensor.dims()));
}

std::string operator_text(std::string_view domain, std::string_view op_type,
                          std::string_view overload) {
  return name_text(fmt::format("{}{}{}{}{}", domain, domain.empty() ? "" : ".", op_type,
                               overload.empty() ? "" : ":", overload));
}

class Printer {
 public:
  explicit Printer(bool inner_types) : inner_types_(inner_types) {}

  std::string take() { return std::move(out_); }

  void print(const Model& model) {
    out_ += fmt::format("model ir={}", model.ir_version);
    print(model.opsets);
    out_ += '\n';
    for (const auto& [key, value] : model.metadata)
      line(fmt::format("metadata {} = {}", quoted(key), quoted(value)));
    print(model.graph);
    for (const auto& function : model.functions) print(*function);
  }

  void print(const Graph& graph) {
    for (const Value* input : graph.inputs()) print_input(*input);
    for (const Value* constant : graph.initializers())
      if (!constant->is_input()) print_constant(*constant);
    for (const Node* node : graph.nodes()) print(*node);
    for (const Value* output : graph.outputs()) {
      const bool declares = output->producer() && &output->graph() == &graph;
      line("output " + name_text(output->name()) + (declares ? type_suffix(*output) : ""));
    }
  }

 private:
  void line(std::string_view content) {
    out_.append(indent_, ' ');
    out_ += content;
    out_ += '\n';
  }

  void print(const OpsetImports& opsets) {
    for (const auto& [domain, version] : opsets)
      out_ += fmt::format(" {}={}", domain.empty() ? "opset" : name_text(domain), version);
  }

  void print(const Function& function) {
    std::vector<std::string> parameters;
    for (const std::string& parameter : function.attribute_names)
      parameters.push_back(name_text(parameter));
    for (const auto& [key, attribute] : function.attribute_defaults)
      parameters.push_back(attribute_text(key, attribute));
    out_ += fmt::format("function {}({})",
                        operator_text(function.domain, function.name, function.overload),
                        fmt::join(parameters, ", "));
    print(function.opsets);
    out_ += " {\n";
    indent_ += 2;
    print(function.body);
    indent_ -= 2;
    out_ += "}\n";
  }

  static std::string type_suffix(const Value& value) {
    return value.type.kind == Type::Kind::unknown ? "" : ": " + to_string(value.type);
  }

  void print_input(const Value& input) {
    std::string content = "input " + name_text(input.name()) + type_suffix(input);
    if (const Initializer* held = input.initializer()) {
      const bool same_type = !held->sparse && input.type == Type::of(held->tensor);
      content += " = " + (same_type ? contents_text(held->tensor) : initializer_text(*held));
    }
    line(content);
  }

  void print_constant(const Value& constant) {
    const Initializer& held = *constant.initializer();
    const std::string start = "initializer " + name_text(constant.name());
    if (held.sparse)
      line(start + " = " + attribute_text(*held.sparse));
    else
      line(start + ": " + type_of_tensor(held.tensor) + " = " + contents_text(held.tensor));
  }

  void print(const Node& node) {
    std::vector<std::string> outputs;
    for (const Value* output : node.outputs()) outputs.push_back(definition_text(output));
    std::vector<std::string> inputs;
    for (const Value* input : node.inputs())
      inputs.push_back(input ? name_text(input->name()) : "_");
    std::string content = fmt::format(
        "{} = {}({})", outputs.empty() ? "()" : fmt::format("{}", fmt::join(outputs, ", ")),
        operator_text(node.domain(), node.op_type(), node.overload()), fmt::join(inputs, ", "));
    std::vector<std::string> attributes;
    for (const auto& [key, attribute] : node.attributes())
      attributes.push_back(attribute_text(key, attribute));
    if (!attributes.empty()) content += fmt::format(" {{{}}}", fmt::join(attributes, ", "));
    if (!node.name.empty()) content += ' ' + quoted(node.name);
    line(content);
  }

  // An output shows its type where it is listed.
  std::string definition_text(const Value* value) const {
    if (!value) return "_";
    const bool listed = std::ranges::find(value->output_of(), &value->graph()) !=
                        value->output_of().end();
    return name_text(value->name()) + (inner_types_ && !listed ? type_suffix(*value) : "");
  }

  std::string initializer_text(const Initializer& initializer) {
    return initializer.sparse ? attribute_text(*initializer.sparse)
                              : tensor_text(initializer.tensor);
  }

  static std::string tensor_text(const Tensor& tensor) {
    return type_of_tensor(tensor) + contents_text(tensor);
  }

  std::string attribute_text(const std::string& key, const Attribute& attribute) {
    key_ = key;
    const std::string value =
        attribute.ref.empty()
            ? std::visit([this](const auto& held) { return attribute_text(held); }, attribute.value)
            : ref_text(attribute);
    return name_text(key) + '=' + value;
  }

  static std::string ref_text(const Attribute& attribute) {
    const auto kind = static_cast<std::size_t>(attribute.kind());
    return fmt::format("@{}({})", name_text(attribute.ref),
                       kind < text::kAttributeKinds.size() ? text::kAttributeKinds[kind] : "none");
  }

  std::string attribute_text(std::monostate) { return "none"; }
  std::string attribute_text(float value) { return float_text(value); }
  std::string attribute_text(std::int64_t value) { return fmt::format("{}", value); }
  std::string attribute_text(const std::string& value) { return quoted(value); }
  std::string attribute_text(const NamedTensor& value) { return tensor_text(value.tensor); }
  std::string attribute_text(const Type& value) { return "type " + to_string(value); }
  std::string attribute_text(const SparseTensor& value) {
    return fmt::format("sparse{}({}, {})", to_string(value.dims), tensor_text(value.values.tensor),
                       tensor_text(value.indices.tensor));
  }
  std::string attribute_text(const std::unique_ptr<Graph>& value) {
    const std::string key = key_;
    Printer inner(inner_types_);
    inner.indent_ = indent_ + 2;
    inner.print(*value);
    return fmt::format("graph {}{{\n{}{:{}}}}", value->name == key ? "" : quoted(value->name) + ' ',
                       inner.take(), "", indent_);
  }
  template <class T>
  std::string attribute_text(const std::vector<T>& list) {
    if (list.empty())
      return fmt::format("{}[]", text::kAttributeKinds[AttributeValue(std::vector<T>()).index()]);
    std::vector<std::string> items;
    for (const T& item : list) items.push_back(attribute_text(item));
    return fmt::format("[{}]", fmt::join(items, ","));
  }

  std::string out_;
  std::size_t indent_ = 0;
  bool inner_types_;
  std::string key_;  // of the attribute being printed: the default name of its graphs
};

}  // namespace

std::string to_text(const Model& model, bool inner_types) {
  Printer printer(inner_types);
  printer.print(model);
  return printer.take();
}

std::string to_text(const Graph& graph, bool inner_types) {
  Printer printer(inner_types);
  printer.print(graph);
  return printer.take();
}

}  // namespace onnxpress
