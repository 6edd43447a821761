// Random inputs that a model can run on.
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "graph/base/error.h"
#include "graph/base/random.h"
#include "graph/exec/dataset.h"
#include "graph/ops/attributes.h"
#include "graph/ops/infer.h"
#include "graph/rewrite/inline.h"

namespace onnxpress {
namespace {

constexpr std::int64_t first_size = 2, spatial_size = 32, other_size = 8;

template <std::size_t N>
bool is_one_of(const Node& node, const std::array<std::string_view, N>& names) {
  return node.domain().empty() && std::ranges::find(names, node.op_type()) != names.end();
}

// Operators whose first output holds elements of input `index`, moved or cast.
bool passes_on(const Node& node, std::size_t index) {
  static constexpr std::array<std::string_view, 11> names{
      "Identity", "Cast",   "Reshape", "Transpose", "Squeeze", "Unsqueeze",
      "Flatten",  "Expand", "Slice",   "Split",     "Tile"};
  if (node.is("Concat")) return true;
  if (is_one_of(node, std::array<std::string_view, 2>{"Gather", "GatherElements"}))
    return index == 0;
  return index == 0 && is_one_of(node, names);
}

// What consumers ask of an integer input.
struct Constraint {
  std::optional<std::int64_t> table;               // smallest table indexed
  std::vector<std::int64_t> compared;              // constants
  std::optional<std::vector<std::int64_t>> exact;  // the very elements
};

class ConstraintFinder {
 public:
  ConstraintFinder(const TypeInference& inference, const Value& input)
      : inference_(inference), input_(input) {
    follow(input);
  }

  const Constraint& found() const { return constraint_; }

 private:
  void follow(const Value& value) {
    if (!seen_.insert(&value).second) return;
    for (const Use& use : value.uses()) {
      consider(*use.node, use.index);
      if (!passes_on(*use.node, use.index)) continue;
      for (const Value* output : use.node->outputs())
        if (output) follow(*output);
    }
  }

  std::optional<Dims> dims(const Value* value) const {
    if (!value) return std::nullopt;
    const Type& type = inference_.type(value);
    return type.shape ? concrete(*type.shape) : std::nullopt;
  }

  void index_into(std::optional<std::int64_t> size) {
    if (size && *size > 0) constraint_.table = std::min(constraint_.table.value_or(*size), *size);
  }

  void index_into_axis(const Node& node, std::int64_t otherwise) {
    const std::optional<Dims> table = dims(node.input(0));
    if (!table || table->empty()) return;
    const std::int64_t axis = normalize_axis(get_int(node, "axis", otherwise), table->size());
    index_into((*table)[static_cast<std::size_t>(axis)]);
  }

  void consider(const Node& node, std::size_t index) {
    static constexpr std::array<std::string_view, 4> by_axis{"Gather", "GatherElements",
                                                             "ScatterElements", "Scatter"};
    static constexpr std::array<std::string_view, 5> comparisons{"Equal", "Less", "Greater",
                                                                 "LessOrEqual", "GreaterOrEqual"};
    static constexpr std::array<std::string_view, 3> recurrent{"LSTM", "GRU", "RNN"};
    if (index == 1 && is_one_of(node, by_axis)) return index_into_axis(node, 0);
    if (index == 1 && is_one_of(node, std::array<std::string_view, 2>{"GatherND", "ScatterND"})) {
      if (const auto table = dims(node.input(0)); table && !table->empty())
        index_into(*std::ranges::min_element(*table));
    } else if (index == 0 && node.is("OneHot")) {
      if (const Tensor* depth = node.input(1) ? inference_.known_value(node.input(1)) : nullptr)
        index_into(depth->to_ints().at(0));
    } else if (is_one_of(node, comparisons)) {
      const Value* other = node.input(1 - index);
      const Tensor* constant = other ? inference_.known_value(other) : nullptr;
      if (constant && constant->size() == 1 && is_integer(constant->dtype()))
        constraint_.compared.push_back(constant->to_ints()[0]);
    } else if (index == 4 && is_one_of(node, recurrent)) {
      if (const auto sequence = dims(node.input(0)); sequence && sequence->size() == 3)
        set_all((*sequence)[get_int(node, "layout", 0) == 0 ? 0 : 1]);
    } else if (index == 1 && node.is("Reshape")) {
      keep_elements(dims(node.input(0)));
    } else if ((index == 1 && is_one_of(node, std::array<std::string_view, 2>{"Expand", "Tile"})) ||
               (index == 0 && node.is("ConstantOfShape"))) {
      set_all(1);
    }
  }

  std::size_t length() const {
    const std::optional<Dims> own = dims(&input_);
    return own ? static_cast<std::size_t>(element_count(*own)) : 0;
  }

  void set_all(std::int64_t value) {
    constraint_.exact = std::vector<std::int64_t>(length(), value);
  }

  void keep_elements(const std::optional<Dims>& data) {
    if (data && data->size() == length()) {
      constraint_.exact = *data;
    } else {
      set_all(1);
      if (length() > 0) constraint_.exact->front() = -1;
    }
  }

  const TypeInference& inference_;
  const Value& input_;
  Constraint constraint_;
  std::set<const Value*> seen_;
};

Tensor random_floats(const Dims& dims, DType type, Random& random,
                     const std::pair<double, double>* range) {
  // Drawing from numbers drawn before takes a tenth of the time of drawing a new one.
  constexpr std::size_t distinct = std::size_t{1} << 16;
  Tensor tensor = Tensor::uninitialized(DType::float32, dims);
  const std::span<float> elements = tensor.mutable_data<float>();
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (range)
      elements[i] = static_cast<float>(random.uniform(range->first, range->second));
    else
      elements[i] = i < distinct ? static_cast<float>(random.normal())
                                 : elements[random.next() % distinct];
  }
  return tensor.cast(type);
}

std::int64_t between(Random& random, std::int64_t low, std::int64_t high) {
  const auto span = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) + 1;
  return low + static_cast<std::int64_t>(span == 0 ? random.next() : random.below(span));
}

Tensor random_integers(const Dims& dims, DType type, Random& random,
                       const std::pair<double, double>* range, const Constraint& constraint) {
  std::int64_t low = 0, high = 1;
  if (range) {
    low = static_cast<std::int64_t>(std::ceil(range->first));
    high = static_cast<std::int64_t>(std::floor(range->second));
  } else if (constraint.table) {
    high = *constraint.table - 1;
  } else if (bits(type) == 8 && type != DType::boolean) {
    low = integer_min(type);
    high = integer_max(type);
  }
  Tensor tensor = Tensor::uninitialized(DType::int64, dims);
  const std::span<std::int64_t> elements = tensor.mutable_data<std::int64_t>();
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (!range && constraint.exact && constraint.exact->size() == elements.size())
      elements[i] = (*constraint.exact)[i];
    else if (!range && !constraint.table && !constraint.compared.empty())
      elements[i] = constraint.compared[random.below(constraint.compared.size())] +
                    (elements.size() == 1 ? 0 : between(random, -1, 1));
    else
      elements[i] = between(random, low, high);
  }
  return tensor.cast(type);
}

// Concrete dims for all inputs, symbols consistent.
class Sizes {
 public:
  explicit Sizes(const std::map<std::string, Dims>& fixed) : fixed_(fixed) {}

  // Symbols of inputs with fixed dims; before any choose().
  void bind(const Value& input) {
    const auto given = fixed_.find(input.name());
    if (given == fixed_.end() || !input.type.shape) return;
    const Shape& shape = *input.type.shape;
    bool fits = shape.size() == given->second.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i) {
      if (shape[i].is_symbol())
        fits = symbols_.try_emplace(shape[i].symbol(), given->second[i]).first->second ==
               given->second[i];
      else
        fits = !shape[i].is_known() || shape[i].value() == given->second[i];
    }
    require(fits, "input '{}': dims {} do not fit {}", input.name(), to_string(given->second),
            to_string(input.type));
  }

  Dims choose(const Value& input) {
    if (const auto given = fixed_.find(input.name()); given != fixed_.end()) return given->second;
    require(input.type.shape.has_value(), "input '{}': its rank is not known: give its dims",
            input.name());
    const Shape& shape = *input.type.shape;
    Dims dims;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      std::int64_t size = i == 0                        ? first_size
                          : shape.size() >= 4 && i >= 2 ? spatial_size
                                                        : other_size;
      if (shape[i].is_known()) size = shape[i].value();
      if (shape[i].is_symbol()) size = symbols_.try_emplace(shape[i].symbol(), size).first->second;
      dims.push_back(size);
    }
    return dims;
  }

 private:
  const std::map<std::string, Dims>& fixed_;
  std::map<std::string, std::int64_t> symbols_;
};

void check_names(const std::vector<Value*>& inputs, const std::string& name) {
  std::vector<std::string> names;
  for (const Value* input : inputs) names.push_back(input->name());
  if (std::ranges::find(names, name) != names.end()) return;
  const std::string near = nearest_name(name, names);
  fail("the model has no input '{}'{}", name,
       near.empty() ? std::string() : fmt::format("; did you mean '{}'?", near));
}

}  // namespace

std::vector<Tensor> probe_inputs(const Model& model, std::uint64_t seed, const InputRanges& ranges,
                                 const std::map<std::string, Dims>& fixed) {
  const std::unique_ptr<Model> inlined = model.clone();
  inline_functions(*inlined);
  const std::vector<Value*> inputs = inlined->required_inputs();
  for (const auto& [name, range] : ranges) check_names(inputs, name);
  for (const auto& [name, dims] : fixed) check_names(inputs, name);

  Sizes sizes(fixed);
  for (const Value* input : inputs) sizes.bind(*input);
  TypeInference inference(*inlined);
  std::vector<Dims> dims;
  for (const Value* input : inputs) {
    require(input->type.is_tensor() && is_known(input->type.elem) &&
                input->type.elem != DType::string && !is_complex(input->type.elem),
            "input '{}': cannot generate {}", input->name(), to_string(input->type));
    dims.push_back(sizes.choose(*input));
    inference.set_input(input, Type::tensor(input->type.elem, to_shape(dims.back())));
  }
  inference.run();

  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Random random = Random(seed).split(i);
    const auto given = ranges.find(inputs[i]->name());
    const std::pair<double, double>* range = given == ranges.end() ? nullptr : &given->second;
    const DType type = inputs[i]->type.elem;
    if (is_float(type))
      tensors.push_back(random_floats(dims[i], type, random, range));
    else
      tensors.push_back(random_integers(dims[i], type, random, range,
                                        ConstraintFinder(inference, *inputs[i]).found()));
  }
  return tensors;
}

}  // namespace onnxpress
