#include "graph/exec/stats.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "graph/base/convert.h"
#include "graph/base/error.h"
#include "graph/exec/costs.h"
#include "graph/exec/input_shapes.h"
#include "graph/onnx/mapped_pages.h"
#include "graph/onnx/writer.h"
#include "graph/ops/quantize_linear.h"

namespace onnxpress {
namespace {

std::string operator_key(const Node& node) {
  return node.domain().empty() ? node.op_type() : node.domain() + "." + node.op_type();
}

bool passes_weights_on(const Node& node) {
  static constexpr std::array<std::string_view, 8> names{"DequantizeLinear", "Identity",  "Cast",
                                                         "Reshape",          "Transpose", "Squeeze",
                                                         "Unsqueeze",        "Flatten"};
  return node.domain().empty() && std::ranges::find(names, node.op_type()) != names.end();
}

const Node* final_reader(const Value& value) {
  const Value* current = &value;
  const Node* reader = nullptr;
  while (current && !current->uses().empty()) {
    reader = current->uses().front().node;
    if (!passes_weights_on(*reader)) return reader;
    current = reader->output();
  }
  return reader;
}

const Tensor* constant_of(const Value* value) {
  if (!value) return nullptr;
  if (const Tensor* tensor = value->constant()) return tensor;
  const Node* producer = value->producer();
  if (!producer || !producer->is("Constant")) return nullptr;
  const Attribute* attribute = producer->attribute("value");
  const auto* held = attribute ? std::get_if<NamedTensor>(&attribute->value) : nullptr;
  return held ? &held->tensor : nullptr;
}

// The zero point of a quantized weight read by `use`, laid over its elements.
struct ZeroPoint {
  std::vector<std::int64_t> values;
  ScaleLayout layout;

  std::int64_t at(std::int64_t element) const {
    if (values.size() == 1) return values[0];
    const std::int64_t row = element / layout.inner;
    return values[static_cast<std::size_t>(layout.row_start(row) +
                                           element % layout.inner * layout.inner_step)];
  }
};

std::optional<ZeroPoint> zero_point(const Use& use, const Dims& dims) {
  struct Place {
    std::string_view op_type;
    std::size_t weight, zero_point;
  };
  static constexpr std::array<Place, 7> places{{{"DequantizeLinear", 0, 2},
                                                {"QLinearConv", 3, 5},
                                                {"QLinearMatMul", 0, 2},
                                                {"QLinearMatMul", 3, 5},
                                                {"ConvInteger", 1, 3},
                                                {"MatMulInteger", 0, 2},
                                                {"MatMulInteger", 1, 3}}};
  for (const Place& place : places) {
    if (!use.node->is(place.op_type) || use.index != place.weight) continue;
    const Tensor* tensor = constant_of(use.node->input(place.zero_point));
    if (!tensor) return std::nullopt;
    QuantizeAttrs attrs;
    if (place.op_type == "DequantizeLinear")
      attrs = QuantizeAttrs::from(*use.node);
    else  // convolutions by filter, products by column
      attrs.axis = place.op_type.find("Conv") != std::string_view::npos
                       ? 0
                       : static_cast<std::int64_t>(dims.size()) - 1;
    ZeroPoint result{.values = tensor->to_ints()};
    if (result.values.size() > 1) result.layout = ScaleLayout::of(dims, tensor->dims(), attrs);
    return result;
  }
  return std::nullopt;
}

// On the bytes as they lie, which in a mapped file need not be aligned; its pages do not stay.
template <class T>
std::int64_t count_of(const Tensor& tensor, T wanted) {
  std::int64_t found = 0;
  for_each_block(tensor.bytes(), [&](std::span<const std::byte> block) {
    std::int32_t in_block = 0;  // narrow, so that the loop is one of vectors
    for (std::size_t at = 0; at < block.size(); at += sizeof(T)) {
      T element;
      std::memcpy(&element, block.data() + at, sizeof(T));
      in_block += element == wanted ? 1 : 0;
    }
    found += in_block;
  });
  return found;
}

// Packed elements equal to a code, a byte at a time.
std::int64_t count_packed(const Tensor& tensor, std::int64_t wanted) {
  const auto width = static_cast<unsigned>(bits(tensor.dtype()));
  const unsigned mask = (1U << width) - 1, code = static_cast<unsigned>(wanted) & mask;
  std::array<std::uint8_t, 256> in_byte{};
  for (unsigned byte = 0; byte < 256; ++byte)
    for (unsigned shift = 0; shift < 8; shift += width) in_byte[byte] += (byte >> shift & mask) == code;
  std::int64_t found = 0;
  for (const std::byte byte : tensor.bytes()) found += in_byte[std::to_integer<std::size_t>(byte)];
  // The last byte may hold more than the elements.
  const auto per_byte = static_cast<std::int64_t>(8 / width);
  for (std::int64_t i = tensor.size(); i % per_byte != 0; ++i)
    found -= get_packed(tensor.bytes().data(), tensor.dtype(), static_cast<std::size_t>(i)) == code;
  return found;
}

std::int64_t count_codes(const Tensor& tensor, std::int64_t wanted) {
  switch (tensor.dtype()) {
    case DType::int8:
    case DType::uint8:
      return count_of(tensor, static_cast<std::uint8_t>(wanted));
    case DType::int16:
    case DType::uint16:
      return count_of(tensor, static_cast<std::uint16_t>(wanted));
    case DType::int32:
    case DType::uint32:
      return count_of(tensor, static_cast<std::uint32_t>(wanted));
    case DType::int64:
    case DType::uint64:
      return count_of(tensor, static_cast<std::uint64_t>(wanted));
    default:
      return count_packed(tensor, wanted);
  }
}

std::int64_t count_zeros(const Value& value, const Tensor& tensor) {
  if (tensor.size() == 0) return 0;
  const DType type = tensor.dtype();
  if (is_integer(type)) {
    std::optional<ZeroPoint> zero;
    for (const Use& use : value.uses())
      if (!zero) zero = zero_point(use, tensor.dims());
    // Mostly one for all channels: looking it up for every element takes many times as long.
    const std::int64_t first = zero && !zero->values.empty() ? zero->values.front() : 0;
    if (!zero || std::ranges::count(zero->values, first) == std::ssize(zero->values))
      return count_codes(tensor, first);
    const std::vector<std::int64_t> codes = tensor.to_ints();
    std::int64_t zeros = 0;
    for (std::size_t i = 0; i < codes.size(); ++i) zeros += codes[i] == zero->at(static_cast<std::int64_t>(i));
    return zeros;
  }
  if (type == DType::boolean) return count_of<std::uint8_t>(tensor, 0);
  if (type == DType::float32) return count_of<float>(tensor, 0);
  if (type == DType::float64) return count_of<double>(tensor, 0);
  if (!is_float(type)) return 0;
  const Tensor wide = tensor.cast(DType::float32);
  return std::ranges::count(wide.data<float>(), 0.0F);
}

std::int64_t stored_bytes(const Tensor& tensor) {
  if (tensor.dtype() != DType::string) return static_cast<std::int64_t>(tensor.byte_size());
  std::int64_t bytes = 0;
  for (const std::string& text : tensor.strings()) bytes += static_cast<std::int64_t>(text.size());
  return bytes;
}

// What counts as zero in an integer tensor depends on its reader: only others are looked up.
using CountedTensors = std::map<std::tuple<const std::byte*, std::int64_t, DType>, std::int64_t>;

CountedTensors counted_tensors(const ModelStats& stats) {
  CountedTensors counted;
  for (const TensorStats& tensor : stats.tensors)
    if (tensor.data)
      if (const auto type = dtype_from_name(tensor.type); type && !is_integer(*type))
        counted.emplace(std::tuple(tensor.data, tensor.elements, *type), tensor.zeros);
  return counted;
}

class Collector {
 public:
  explicit Collector(CountedTensors counted) : counted_(std::move(counted)) {}

  void add(const Value& value, const Tensor& tensor) {
    const std::byte* data = tensor.bytes().data();
    const auto known = counted_.find(std::tuple(data, tensor.size(), tensor.dtype()));
    const std::int64_t zeros =
        known == counted_.end() ? count_zeros(value, tensor) : known->second;
    add(value, tensor, tensor.dims(), stored_bytes(tensor), tensor.size(), zeros, zeros);
    stats.tensors.back().data = data;
  }

  void add(const Value& value, const SparseTensor& sparse) {
    const Tensor& stored = sparse.values.tensor;
    const std::int64_t zeros = count_zeros(value, stored);
    const std::int64_t elements = element_count(sparse.dims);
    add(value, stored, sparse.dims, stored_bytes(stored) + stored_bytes(sparse.indices.tensor),
        elements, elements - stored.size() + zeros, zeros);
  }

  void add_node(const Node& node) {
    if (node.is("Constant")) return;
    ++stats.nodes;
    ++operators_[operator_key(node)].count;
  }

  void add_macs(const Node& node, std::optional<std::int64_t> macs) {
    stats.macs += macs.value_or(0);
    stats.macs_unknown += !macs;
    operators_[operator_key(node)].macs += macs.value_or(0);
  }

  ModelStats finish() {
    std::ranges::stable_sort(stats.tensors, std::ranges::greater(), &TensorStats::bytes);
    stats.by_operator = sorted(operators_);
    stats.by_type = sorted(types_);
    return std::move(stats);
  }

  ModelStats stats;

 private:
  using Table = std::map<std::string, CountedBytes>;

  void add(const Value& value, const Tensor& stored, const Dims& dims, std::int64_t bytes,
           std::int64_t elements, std::int64_t zeros, std::int64_t stored_zeros) {
    TensorStats tensor{.name = value.name(),
                       .type = std::string(onnxpress::name(stored.dtype())),
                       .dims = dims,
                       .bytes = bytes,
                       .elements = elements,
                       .zeros = zeros,
                       .bits = bits(stored.dtype())};
    if (const Node* reader = final_reader(value)) {
      tensor.op_type = operator_key(*reader);
      tensor.node = reader->name;
      operators_[tensor.op_type].bytes += bytes;
    }
    CountedBytes& by_type = types_[tensor.type];
    ++by_type.count;
    by_type.bytes += bytes;
    stats.tensor_bytes += bytes;
    if (is_parameter(value, stored.dtype())) stats.zeros += stored_zeros;
    stats.tensors.push_back(std::move(tensor));
  }

  static std::vector<CountedBytes> sorted(Table& table) {
    std::vector<CountedBytes> rows;
    for (auto& [key, row] : table) {
      row.key = key;
      rows.push_back(row);
    }
    std::ranges::stable_sort(rows, std::ranges::greater(), &CountedBytes::bytes);
    return rows;
  }

  CountedTensors counted_;
  Table operators_, types_;
};

}  // namespace

ModelStats model_stats(const Model& model, const ModelStats* similar) {
  Collector collector(similar ? counted_tensors(*similar) : CountedTensors());
  model.for_each_graph([&](const Graph& graph) {
    for (const Value* value : graph.initializers()) {
      const Initializer& held = *value->initializer();
      if (held.sparse)
        collector.add(*value, *held.sparse);
      else
        collector.add(*value, held.tensor);
    }
    for (const Node* node : graph.nodes()) {
      collector.add_node(*node);
      const Value* output = node->output();
      if (!node->is("Constant") || !output) continue;
      if (const Tensor* tensor = constant_of(output)) collector.add(*output, *tensor);
    }
  });
  const TypedModel typed(model);
  for_each_cost(typed, [&](const Node& node, std::optional<std::int64_t> macs) {
    collector.add_macs(node, macs);
  });
  const ActivationMemory memory = activation_memory(typed);
  collector.stats.activation_bytes = memory.peak_bytes;
  collector.stats.activation_peak_at = memory.at ? memory.at->describe() : std::string();
  collector.stats.activations_unknown = memory.unknown_values;
  collector.stats.open_dims_are_1 = typed.open_dims_are_1();
  collector.stats.open_dims = open_dims(model);
  collector.stats.parameters = parameter_count(model);
  collector.stats.serialized_bytes = static_cast<std::int64_t>(serialized_size(model));
  return collector.finish();
}

}  // namespace onnxpress
