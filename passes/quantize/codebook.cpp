#include "passes/quantize/codebook.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/base/convert.h"
#include "graph/onnx/mapped_pages.h"
#include "graph/ops/gather.h"
#include "graph/ops/identity.h"
#include "graph/rewrite/patch.h"
#include "passes/common/rounding_loops.h"
#include "passes/common/scale_rows.h"
#include "passes/common/weight_pieces.h"
#include "passes/quantize/kmeans.h"

namespace onnxpress {
namespace {

std::int64_t channels_of(const StoredWeight& stored) {
  if (stored.granularity.kind == Granularity::Kind::tensor) return 1;
  return stored.weight.value->constant()->dim(static_cast<std::size_t>(stored.granularity.axis));
}

std::int64_t palettes_of(const StoredWeight& stored) {
  if (stored.granularity.kind == Granularity::Kind::tensor) return 1;
  return (channels_of(stored) + stored.granularity.block - 1) / stored.granularity.block;
}

// Slices of the axis by channel, one channel when one palette serves all.
ScaleRows channel_rows(const StoredWeight& stored) {
  const Dims& dims = stored.weight.value->constant()->dims();
  const bool all = stored.granularity.kind == Granularity::Kind::tensor;
  return {dims, all ? Granularity::per_tensor() : Granularity::per_channel(stored.granularity.axis)};
}

// Elements of channels [first, last), sorted; nothing when one is not finite.
std::optional<std::vector<float>> sorted_elements(const StoredWeight& stored, std::int64_t first, std::int64_t last) {
  const Tensor& weight = *stored.weight.value->constant();
  const ScaleRows rows = channel_rows(stored);
  const std::int64_t span = (last - first) * rows.inner();
  std::vector<float> all, part;
  for (std::int64_t outer = 0; outer < rows.outer(); ++outer) {
    read_floats(weight, (outer * rows.extent() + first) * rows.inner(), span, part);
    all.insert(all.end(), part.begin(), part.end());
  }
  float low = 0, high = 0;
  if (!range_loop(all.data(), std::ssize(all), low, high)) return std::nullopt;
  std::ranges::sort(all);
  return all;
}

// The palette of numbers that the weight's type holds.
std::vector<float> palette_of(const std::vector<float>& sorted, std::size_t count, DType type) {
  std::vector<float> palette = k_means(sorted, count);
  const auto zeros = std::ranges::equal_range(sorted, 0.0F);
  if (static_cast<std::size_t>(zeros.size()) * count >= sorted.size())
    *std::ranges::min_element(palette, {}, [](float center) { return std::fabs(center); }) = 0;
  std::vector<std::byte> stored(packed_bytes(type, palette.size()));
  auto* const bytes = reinterpret_cast<std::byte*>(palette.data());
  convert_elements(DType::float32, bytes, type, stored.data(), palette.size());
  convert_elements(type, stored.data(), DType::float32, bytes, palette.size());
  std::ranges::sort(palette);
  palette.resize(count, palette.back());
  return palette;
}

// Number of the palette's entry nearest to the value.
std::uint8_t nearest_entry(std::span<const float> palette, float value) {
  const auto above = std::ranges::lower_bound(palette, value) - palette.begin();
  if (above == 0) return 0;
  const auto index = static_cast<std::size_t>(above);
  if (index == palette.size() || value - palette[index - 1] <= palette[index] - value)
    return static_cast<std::uint8_t>(index - 1);
  return static_cast<std::uint8_t>(index);
}

}  // namespace

std::int64_t codebook_opset(DType indices) { return std::max<std::int64_t>(10, first_opset(indices)); }

Granularity palette_groups(const Weight& weight, const QuantizeRequest& request, int bits) {
  if (request.granularity == Granularity::Kind::tensor || !weight.channel_axis) return Granularity::per_tensor();
  const Tensor& tensor = *weight.value->constant();
  const std::int64_t channels = tensor.dim(static_cast<std::size_t>(*weight.channel_axis));
  if (tensor.size() == 0) return Granularity::per_tensor();
  std::int64_t block = request.block;
  if (request.granularity == Granularity::Kind::channel) {
    const auto palette = static_cast<double>(packed_bytes(tensor.dtype(), std::size_t{1} << bits));
    const double indices = static_cast<double>(tensor.size() / channels) * bits / 8;
    block = static_cast<std::int64_t>(std::ceil(std::min(8 * palette / indices, static_cast<double>(channels))));
  }
  return block >= channels ? Granularity::per_tensor() : Granularity::per_block(*weight.channel_axis, block);
}

std::size_t palette_bytes(const StoredWeight& stored) {
  const auto palettes = static_cast<std::size_t>(palettes_of(stored));
  const std::size_t bytes =
      packed_bytes(stored.weight.value->constant()->dtype(), palettes << static_cast<unsigned>(stored.type.bits));
  return palettes == 1 ? bytes : bytes + packed_bytes(DType::int32, static_cast<std::size_t>(channels_of(stored)));
}

std::optional<Codebook> make_codebook(const StoredWeight& stored, ThreadPool& pool) {
  const Tensor& weight = *stored.weight.value->constant();
  const auto count = std::size_t{1} << static_cast<unsigned>(stored.type.bits);
  const std::int64_t palettes = palettes_of(stored), channels = channels_of(stored);
  const std::int64_t block = palettes == 1 ? channels : stored.granularity.block;
  std::vector<float> numbers(static_cast<std::size_t>(palettes) * count);
  std::vector<char> finite(static_cast<std::size_t>(palettes), 1);
  pool.parallel_for(palettes, 1, [&](std::int64_t index, std::int64_t) {
    const auto sorted = sorted_elements(stored, index * block, std::min((index + 1) * block, channels));
    finite[static_cast<std::size_t>(index)] = sorted.has_value();
    if (!sorted) return;
    const std::vector<float> palette = palette_of(*sorted, count, weight.dtype());
    std::ranges::copy(palette, numbers.begin() + index * static_cast<std::int64_t>(count));
  });
  if (std::ranges::find(finite, 0) != finite.end()) return std::nullopt;

  Codebook codebook{.indices = Tensor::uninitialized(stored.type.storage, weight.dims())};
  std::byte* const target = codebook.indices.mutable_bytes().data();
  const ScaleRows rows = channel_rows(stored);
  std::vector<RoundingSums> parts(static_cast<std::size_t>((weight.size() + piece_elements - 1) / piece_elements));
  for_each_piece(weight, &pool, [&](const float* x, std::int64_t begin, std::int64_t size) {
    RoundingSums& sums = parts[static_cast<std::size_t>(begin / piece_elements)];
    std::vector<std::uint8_t> entries(static_cast<std::size_t>(size));
    rows.each(begin, begin + size, [&](std::int64_t first, std::int64_t step, std::int64_t at, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i) {
        const auto place = static_cast<std::size_t>((first + i * step) / block) * count;
        const std::span<const float> palette(numbers.data() + place, count);
        const float value = x[at - begin + i];
        const std::uint8_t entry = nearest_entry(palette, value);
        entries[static_cast<std::size_t>(at - begin + i)] = entry;
        const double error = static_cast<double>(value) - static_cast<double>(palette[entry]);
        sums.signal += static_cast<double>(value) * static_cast<double>(value);
        sums.noise += error * error;
        sums.zeros += palette[entry] == 0;
      }
    });
    convert_elements(DType::uint8, reinterpret_cast<const std::byte*>(entries.data()), stored.type.storage,
                     target + packed_bytes(stored.type.storage, static_cast<std::size_t>(begin)), entries.size());
  });
  release_pages(weight.bytes());
  RoundingSums sums;
  for (const RoundingSums& part : parts) sums += part;
  codebook.zeros = sums.zeros;
  codebook.snr_db =
      sums.noise > 0 ? 10 * std::log10(sums.signal / sums.noise) : std::numeric_limits<double>::infinity();
  codebook.palette = Tensor::of<float>({std::ssize(numbers)}, numbers).cast(weight.dtype());
  return codebook;
}

void replace_by_codebook(const StoredWeight& stored, const Codebook& codebook) {
  Value* const weight = stored.weight.value;
  Patch patch(weight->graph());
  const std::string& base = weight->name();
  const auto put = [&](OpCall call, std::string name, std::vector<Patch::Ref> inputs) {
    return patch.node({.op_type = std::move(call.op_type), .name = std::move(name), .inputs = std::move(inputs),
                       .attributes = std::move(call.attributes)});
  };
  Patch::Ref indices = put(make_cast(DType::int32), base + "_Cast",
                           {patch.constant(base + "_indices", codebook.indices)});
  const std::int64_t palettes = palettes_of(stored);
  if (palettes > 1) {
    const std::int64_t channels = channels_of(stored), count = codebook.palette.size() / palettes;
    std::vector<std::int32_t> places;
    for (std::int64_t channel = 0; channel < channels; ++channel)
      places.push_back(static_cast<std::int32_t>(channel / stored.granularity.block * count));
    // Aligned with the axis, from the last one on.
    Dims dims(codebook.indices.rank() - static_cast<std::size_t>(stored.granularity.axis), 1);
    dims[0] = channels;
    indices = put({"Add"}, base + "_Add",
                  {indices, patch.constant(base + "_palettes", Tensor::of<std::int32_t>(dims, places))});
  }
  patch.replace(weight, put(make_gather(0), base + "_Gather",
                            {patch.constant(base + "_palette", codebook.palette), indices}));
  patch.apply();
}

}  // namespace onnxpress
