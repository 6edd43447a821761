#include "passes/quantize/storage.h"

#include <algorithm>
#include <map>
#include <optional>

#include <fmt/ranges.h>

#include "graph/ops/gemm.h"
#include "graph/ops/quantize_linear.h"
#include "graph/ops/upgrade.h"
#include "passes/quantize/codebook.h"
#include "passes/quantize/contrib_weights.h"

namespace onnxpress {
namespace {

DType storage_type(int bits, bool symmetric) {
  if (bits <= 2) return symmetric ? DType::int2 : DType::uint2;
  if (bits <= 4) return symmetric ? DType::int4 : DType::uint4;
  if (bits <= 8) return symmetric ? DType::int8 : DType::uint8;
  return symmetric ? DType::int16 : DType::uint16;
}

std::string_view words(Granularity::Kind kind) {
  switch (kind) {
    case Granularity::Kind::tensor: return "";
    case Granularity::Kind::channel: return " per channel";
    case Granularity::Kind::block: return " in blocks";
  }
  return "";
}

// Where the model's own operators let the opset go.
class Reach {
 public:
  Reach(const Model& model, bool only_loadable) : model_(model), only_loadable_(only_loadable) {}

  // Why not, or nothing when the model has that opset or can be brought to it.
  std::optional<std::string> obstacle(std::int64_t opset) {
    if (opset <= model_.graph.opset()) return std::nullopt;
    if (only_loadable_ && opset > loadable_opset)
      return fmt::format("which the reference runtime does not load (it does opset {})", loadable_opset);
    const auto [known, is_new] = known_.try_emplace(opset);
    if (is_new) {
      const std::vector<std::string> obstacles = upgrade_obstacles(model_, opset);
      if (!obstacles.empty()) known->second = "which the model cannot reach: " + obstacles.front();
    }
    return known->second;
  }

 private:
  const Model& model_;
  bool only_loadable_;
  std::map<std::int64_t, std::optional<std::string>> known_;
};

// The scales' element type beside a weight's.
DType scale_type(const StoredWeight& stored) {
  return stored.grid.scale_type == DType::undefined ? stored.weight.value->constant()->dtype()
                                                    : stored.grid.scale_type;
}

std::int64_t opset_of(const StoredWeight& stored) {
  if (stored.form == Form::contrib) return 1;
  if (stored.form == Form::codebook) return codebook_opset(stored.type.storage);
  const bool blocked = stored.granularity.kind == Granularity::Kind::block;
  std::int64_t opset =
      first_quantize_opset(stored.type.storage, stored.granularity.kind != Granularity::Kind::tensor, blocked);
  if (bits(stored.weight.value->constant()->dtype()) == 16) opset = std::max<std::int64_t>(opset, 19);
  if (scale_type(stored) == DType::float8e8m0) opset = std::max<std::int64_t>(opset, 24);
  return opset;
}

// Whether a product reads it as it lies. The runtime makes a MatMul of a Gemm whose weight is not
// transposed.
bool is_multiplied(const Value& value) {
  const auto uses = value.uses();
  return std::any_of(uses.begin(), uses.end(), [](const Use& use) {
    return use.node->is("MatMul") || (use.node->is("Gemm") && !GemmAttrs::from(*use.node).transpose_b);
  });
}

bool moves_elements(const Node& node) {
  static constexpr std::string_view movements[] = {"Transpose", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"};
  return std::ranges::any_of(movements, [&](std::string_view op) { return node.is(op); });
}

// Whether a product reads what movements make of it: the runtime moves the codes, into which order
// they come is not known here, and there it moves none with 2-bit zero points.
bool is_moved_to_product(const Value& value) {
  const auto uses = value.uses();
  return std::any_of(uses.begin(), uses.end(), [](const Use& use) {
    if (!moves_elements(*use.node)) return false;
    const Value& moved = *use.node->output();
    const auto readers = moved.uses();
    const bool in_product = std::any_of(readers.begin(), readers.end(), [](const Use& reader) {
      return reader.node->is("MatMul") || reader.node->is("Gemm");
    });
    return in_product || is_moved_to_product(moved);
  });
}

// Whether it is, at most moved, the first factor of a product with another constant.
bool multiplies_constant(const Value& value) {
  const auto uses = value.uses();
  return std::any_of(uses.begin(), uses.end(), [](const Use& use) {
    if (use.node->is("MatMul") || use.node->is("Gemm")) return use.index == 0 && use.node->input(1) && use.node->input(1)->is_constant();
    return moves_elements(*use.node) && use.index == 0 && multiplies_constant(*use.node->output());
  });
}

// Whether a product with another constant reads it, at most moved.
bool is_factor_of_constants(const Value& value) {
  const auto uses = value.uses();
  return std::any_of(uses.begin(), uses.end(), [](const Use& use) {
    if (!use.node->is("MatMul") && !use.node->is("Gemm"))
      return moves_elements(*use.node) && use.index == 0 && is_factor_of_constants(*use.node->output());
    return use.index < 2 && use.node->input(1 - use.index) && use.node->input(1 - use.index)->is_constant();
  });
}

class Planner {
 public:
  Planner(const Model& model, const QuantizeRequest& request, std::string_view pass)
      : model_(model), request_(request), pass_(pass), reach_(model, request.only_loadable) {}

  void plan(const Weight& weight) {
    const int width = request_.bits_of(*weight.node, *weight.value);
    const std::string& tensor = weight.value->name();
    if (width == 0) return leave(weight, fmt::format("'{}' stays in float: an override says so", tensor));
    if (weight.value->constant()->dtype() == DType::float64)
      return leave(weight, fmt::format("'{}' is float64: DequantizeLinear has no such scales", tensor));
    const bool is_small_float = request_.weight_type && is_float(*request_.weight_type);
    if (request_.only_loadable && is_small_float && is_factor_of_constants(*weight.value))
      return leave(weight, fmt::format("'{}' is a factor of a product of constants, which the reference runtime computes on integers only", tensor));
    StoredWeight stored{.weight = weight, .form = form_of(weight)};
    stored.grid = {.scale_type = request_.scale_type, .power_of_two = request_.power_of_two};
    if (stored.form == Form::codebook) choose_indices(stored, width);
    else if (stored.form == Form::contrib) choose_contrib(stored, width);
    else choose_grid(stored, width);
    const std::size_t bytes = weight.value->constant()->byte_size(), after = stored_bytes(stored);
    if (after >= bytes && !request_.may_grow)
      return leave(weight, fmt::format("'{}' would not shrink: {} bytes now, {} quantized with its scales and node",
                                       weight.value->name(), bytes, after));
    count(stored, width);
    plan_.opset = std::max(plan_.opset, stored.opset);
    plan_.weights.push_back(std::move(stored));
  }

  StoragePlan take() {
    for (const auto& [text, count] : steps_) plan_.notes.push_back(fmt::format("{} ({} weights)", text, count));
    for (const auto& [key, count] : wrong_)
      plan_.notes.push_back(fmt::format("{} weights of matrix products are stored as {}: the reference runtime computes "
                                        "wrong results with {}", count, name(key.second), name(key.first)));
    for (const auto& [key, reachable] : wider_)
      plan_.notes.push_back(fmt::format("{}-bit levels are stored as {}: ONNX has no {}-bit type{}", key.first,
                                        name(key.second), key.first, reachable ? "" : " within reach"));
    if (request_.only_loadable && (model_.graph.opset() > loadable_opset || model_.ir_version > loadable_ir_version))
      plan_.notes.push_back(fmt::format("the model is at opset {}, IR version {}: newer than what the reference "
                                        "runtime loads (opset {}, IR version {})", model_.graph.opset(),
                                        model_.ir_version, loadable_opset, loadable_ir_version));
    return std::move(plan_);
  }

 private:
  void leave(const Weight& weight, std::string reason) {
    plan_.left.push_back({std::string(pass_), weight.node->describe(), std::move(reason)});
  }

  Form form_of(const Weight& weight) {
    if (request_.form == Form::codebook) return Form::codebook;
    if (request_.form != Form::contrib) return Form::qdq;
    const std::optional<std::string> obstacle = contrib_obstacle(weight, request_.block);
    if (!obstacle) return Form::contrib;
    ++steps_["DequantizeLinear where com.microsoft has no such operator: " + *obstacle];
    return Form::qdq;
  }

  void choose_indices(StoredWeight& stored, int width) {
    stored.type = {.bits = width, .symmetric = false, .storage = storage_type(width, false)};
    stored.granularity = palette_groups(stored.weight, request_, width);
    for (;; stored.type.storage = storage_type(bits(stored.type.storage) + 1, false)) {
      stored.opset = opset_of(stored);
      const std::optional<std::string> obstacle = reach_.obstacle(stored.opset);
      if (!obstacle) return;
      require(bits(stored.type.storage) < 8, "form=codebook needs opset {}, {}", stored.opset, *obstacle);
      ++steps_[fmt::format("indices in {} need opset {}, {}", name(stored.type.storage), stored.opset, *obstacle)];
    }
  }

  void choose_contrib(StoredWeight& stored, int width) {
    stored.type = {.bits = width,
                   .symmetric = request_.symmetric,
                   .storage = storage_type(width, request_.symmetric),
                   .all_codes = request_.symmetric && request_.uses_all_codes(width)};
    stored.granularity = Granularity::per_block(*stored.weight.input_axis, request_.block);
    stored.grid.scale_type = DType::undefined;
    stored.opset = opset_of(stored);
  }

  // Of the weight, as finely as asked for.
  Granularity granularity_of(const Weight& weight) {
    const Dims& dims = weight.value->constant()->dims();
    Granularity::Kind kind = request_.granularity;
    if (kind == Granularity::Kind::block) {
      if (weight.input_axis && dims[static_cast<std::size_t>(*weight.input_axis)] > request_.block)
        return Granularity::per_block(*weight.input_axis, request_.block);
      ++steps_[fmt::format("one scale per channel: no more than {} inputs, or inputs along no axis", request_.block)];
      kind = Granularity::Kind::channel;
    }
    const bool has_channels = kind == Granularity::Kind::channel && weight.channel_axis;
    return has_channels ? Granularity::per_channel(*weight.channel_axis) : Granularity::per_tensor();
  }

  // What there is instead of a granularity that the model does not reach.
  static std::vector<Granularity> coarser(const Weight& weight, const Granularity& first) {
    std::vector<Granularity> all{first};
    if (first.kind == Granularity::Kind::block && weight.channel_axis)
      all.push_back(Granularity::per_channel(*weight.channel_axis));
    if (first.kind != Granularity::Kind::tensor) all.push_back(Granularity::per_tensor());
    return all;
  }

  // What is asked for first.
  std::vector<Granularity> granularities_of(const Weight& weight, int width) {
    // The runtime computes products of constants on 8-bit codes, and then takes one zero point of the first.
    const QuantizedType type = types_of(width).front();
    if (request_.only_loadable && !type.symmetric && bits(type.storage) == 8 && multiplies_constant(*weight.value))
      return {Granularity::per_tensor()};
    return coarser(weight, granularity_of(weight));
  }

  std::vector<QuantizedType> types_of(int width) const {
    if (request_.weight_type) {
      const DType type = *request_.weight_type;
      if (is_float(type)) return {{bits(type), true, type}};
      const bool symmetric = request_.symmetric && is_signed_integer(type);
      return {{width, symmetric, type, symmetric && request_.uses_all_codes(width)}};
    }
    std::vector<QuantizedType> types;
    for (int step = width; step <= std::max(width, 8); step = step <= 2 ? 4 : step <= 4 ? 8 : 17)
      types.push_back({width, request_.symmetric, storage_type(step, request_.symmetric), request_.symmetric && request_.uses_all_codes(width)});
    return types;
  }

  void choose_grid(StoredWeight& stored, int width) {
    request_.check_width(width);
    std::vector<std::string> tried;
    const bool has_blocks = request_.format != BlockFormat::none;
    for (const Granularity& granularity : granularities_of(stored.weight, width)) {
      for (const QuantizedType& type : types_of(width)) {
        stored.type = type;
        stored.type.storage = storage_for(stored.weight, type.storage, request_.only_loadable);
        stored.granularity = granularity;
        if (has_blocks) stored.grid = format_grid(granularity);
        stored.opset = opset_of(stored);
        const std::optional<std::string> obstacle = reach_.obstacle(stored.opset);
        if (!obstacle) {
          for (const std::string& text : tried) ++steps_[text];
          if (stored.type.storage != type.storage) ++wrong_[{type.storage, stored.type.storage}];
          return;
        }
        tried.push_back(fmt::format("{}{} needs opset {}, {}", name(stored.type.storage), words(granularity.kind),
                                    stored.opset, *obstacle));
      }
    }
    fail("no form of DequantizeLinear is within reach: {}", fmt::join(tried, "; "));
  }

  // Scales of the microscaling formats; a weight without blocks has those of its own type.
  GridOptions format_grid(const Granularity& granularity) const {
    GridOptions grid;
    if (granularity.kind != Granularity::Kind::block) return grid;
    grid.scale_type = request_.format == BlockFormat::nvfp4 ? DType::float8e4m3fn : DType::float8e8m0;
    return grid;
  }

  void count(const StoredWeight& stored, int width) {
    const int stored_bits = bits(stored.type.storage);
    if (stored.type.has_float_codes() || stored_bits <= width || request_.weight_type) return;
    if (storage_for(stored.weight, storage_type(width, stored.type.symmetric), request_.only_loadable) ==
            stored.type.storage && width <= 2)
      return;  // told as one that the runtime gets wrong
    wider_[{width, stored.type.storage}] = width != 2 && width != 4;
  }

  const Model& model_;
  const QuantizeRequest& request_;
  std::string_view pass_;
  Reach reach_;
  StoragePlan plan_;
  std::map<std::string, int> steps_;                    // what was given up, and for how many weights
  std::map<std::pair<DType, DType>, int> wrong_;        // stored as the second type, not the first
  std::map<std::pair<int, DType>, bool> wider_;         // levels and type; whether ONNX lacks a smaller one
};

// Names stand twice, that of the result once per reader; operator, dims, framing.
std::size_t node_bytes(const StoredWeight& stored) {
  const std::size_t readers = stored.weight.value->uses().size(), name_bytes = stored.weight.value->name().size();
  const bool has_zero_points = !stored.type.symmetric && !stored.type.has_float_codes();
  const std::size_t another_node = 100 + 3 * name_bytes;
  std::size_t bytes = (has_zero_points ? 170 : 130) + 20 * readers + 8 * name_bytes;
  if (stored.form == Form::contrib) return bytes + 140 * readers;
  if (stored.form == Form::codebook) return bytes + 3 * another_node;
  if (stored.granularity.kind == Granularity::Kind::block) bytes += 40;
  const DType weight = stored.weight.value->constant()->dtype();
  if (scale_type(stored) == DType::float8e4m3fn) bytes += another_node + 30;
  else if (scale_type(stored) != weight) bytes += another_node;
  return bytes;
}

}  // namespace

std::size_t stored_bytes(const StoredWeight& stored) {
  const Tensor& tensor = *stored.weight.value->constant();
  const auto elements = static_cast<std::size_t>(tensor.size());
  if (stored.form == Form::codebook)
    return packed_bytes(stored.type.storage, elements) + palette_bytes(stored) + node_bytes(stored);
  const auto scales = static_cast<std::size_t>(element_count(stored.granularity.scale_dims(tensor.dims())));
  const bool has_zero_points = !stored.type.symmetric && !stored.type.has_float_codes();
  std::size_t codes = packed_bytes(stored.type.storage, elements);
  std::size_t zero_points = has_zero_points ? packed_bytes(stored.type.storage, scales) : 0;
  if (stored.form == Form::contrib) {  // rows end at whole blocks and bytes
    const auto width = static_cast<std::size_t>(bits(stored.type.storage));
    codes = scales * static_cast<std::size_t>(stored.granularity.block) * width / 8;
    const auto depth = static_cast<std::size_t>(tensor.dim(static_cast<std::size_t>(stored.granularity.axis)));
    if (has_zero_points) zero_points += elements / depth;
  }
  return codes + packed_bytes(scale_type(stored), scales) + zero_points + node_bytes(stored);
}

StoragePlan plan_storage(const Model& model, const QuantizeRequest& request, const std::vector<Weight>& weights,
                         std::string_view pass) {
  Planner planner(model, request, pass);
  for (const Weight& weight : weights) planner.plan(weight);
  return planner.take();
}

DType storage_for(const Weight& weight, DType type, bool only_loadable) {
  if (!only_loadable || bits(type) != 2) return type;
  const Dims& dims = weight.value->constant()->dims();
  const auto is_odd = [](std::int64_t size) { return size % 4 != 0; };
  const bool wrong_in_runtime =
      (is_multiplied(*weight.value) && !dims.empty() && is_odd(dims.back())) || multiplies_constant(*weight.value) ||
      (is_moved_to_product(*weight.value) && (type == DType::uint2 || std::ranges::any_of(dims, is_odd)));
  if (!wrong_in_runtime) return type;
  return type == DType::int2 ? DType::int4 : DType::uint4;
}

}  // namespace onnxpress
