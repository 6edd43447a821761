// Whole weights against a slow reference: every granularity, code type and element type.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/base/convert.h"
#include "graph/base/random.h"
#include "passes/common/quantization.h"
#include "passes/common/rounding_loops.h"
#include "passes/common/scale_rows.h"

namespace onnxpress {
namespace {

Tensor random_weight(Dims dims, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<std::size_t>(element_count(dims)));
  for (float& value : values) value = static_cast<float>(random.uniform(-2, 3) * std::exp(random.uniform(-3, 1)));
  for (std::size_t i = 0; i < values.size(); i += 11) values[i] = 0;
  return Tensor::of<float>(std::move(dims), values);
}

// The scale of one element by the definition, over the dims.
std::int64_t slow_scale(const Dims& dims, const Granularity& granularity, std::int64_t element) {
  if (granularity.kind == Granularity::Kind::tensor) return 0;
  std::vector<std::int64_t> place(dims.size());
  for (std::size_t axis = dims.size(); axis-- > 0; element /= dims[axis]) place[axis] = element % dims[axis];
  const auto along = static_cast<std::size_t>(granularity.axis);
  if (granularity.kind == Granularity::Kind::channel) return place[along];
  place[along] /= granularity.block;
  const Dims scales = granularity.scale_dims(dims);
  std::int64_t index = 0;
  for (std::size_t axis = 0; axis < dims.size(); ++axis) index = index * scales[axis] + place[axis];
  return index;
}

std::vector<Granularity> all_granularities(const Dims& dims) {
  std::vector<Granularity> all{Granularity::per_tensor()};
  for (std::int64_t axis = 0; axis < std::ssize(dims); ++axis) {
    all.push_back(Granularity::per_channel(axis));
    for (const std::int64_t block : {2, 4, 32}) all.push_back(Granularity::per_block(axis, block));
  }
  return all;
}

std::vector<QuantizedType> all_types() {
  std::vector<QuantizedType> all{{16, true, DType::int16},        {16, false, DType::uint16},
                                 {8, false, DType::int8},         {3, true, DType::int4},
                                 {4, false, DType::int4},         {8, true, DType::float8e4m3fn},
                                 {8, true, DType::float8e5m2},    {4, true, DType::float4e2m1}};
  for (const auto& [bits, is_signed, is_unsigned] :
       {std::tuple{2, DType::int2, DType::uint2}, {4, DType::int4, DType::uint4}, {8, DType::int8, DType::uint8}}) {
    all.push_back({bits, true, is_signed});
    all.push_back({bits, false, is_unsigned});
  }
  return all;
}

// Codes of a packed tensor: numbers, or the bits of floats.
std::vector<std::int64_t> codes_of(const Tensor& codes) {
  if (is_integer(codes.dtype())) return codes.to_ints();
  std::vector<std::int64_t> bits_of;
  for (std::size_t i = 0; i < static_cast<std::size_t>(codes.size()); ++i)
    bits_of.push_back(is_sub_byte(codes.dtype()) ? get_packed(codes.bytes().data(), codes.dtype(), i)
                                                 : std::to_integer<std::uint8_t>(codes.bytes()[i]));
  return bits_of;
}

void check_against_reference(const Tensor& weight, const QuantizedType& type, const Granularity& granularity,
                             const GridOptions& options) {
  const auto grid = min_max_grid(weight, type, granularity, options);
  REQUIRE(grid);
  const QuantizedTensor quantized = round_to_nearest(weight, *grid);
  const std::vector<float> values = weight.to_floats();
  CHECK(quantized.codes.dims() == weight.dims());
  CHECK(quantized.codes.dtype() == type.storage);
  CHECK(quantized.scale.dims() == granularity.scale_dims(weight.dims()));
  CHECK(quantized.scale.dtype() == grid->scale_type);
  std::vector<float> scales = quantized.scale.to_floats();
  if (quantized.outer_scale.defined())
    for (float& scale : scales) scale *= quantized.outer_scale.to_floats()[0];
  const std::vector<std::int64_t> codes = codes_of(quantized.codes);

  double signal = 0, noise = 0;
  std::int64_t zeros = 0, wrong = 0, far = 0;
  for (std::int64_t i = 0; i < weight.size(); ++i) {
    const auto g = static_cast<std::size_t>(slow_scale(weight.dims(), granularity, i));
    const QuantizationParameters& p = grid->parameters[g];
    wrong += p.scale != scales[g];
    const float value = values[static_cast<std::size_t>(i)];
    const std::int64_t code = codes[static_cast<std::size_t>(i)];
    wrong += code != quantize(value, p, type);
    const float level = dequantize(code, p, type);
    far += value == 0 && level != 0;
    signal += static_cast<double>(value) * static_cast<double>(value);
    noise += std::pow(static_cast<double>(value) - static_cast<double>(level), 2);
    zeros += level == 0;
  }
  CHECK(wrong == 0);
  CHECK(far == 0);
  CHECK(quantized.zeros == zeros);
  CHECK(quantized.snr_db == doctest::Approx(10 * std::log10(signal / noise)));
  // The same codes, given: nothing else changes.
  std::vector<std::int32_t> given(codes.begin(), codes.end());
  const QuantizedTensor again = with_codes(weight, *grid, given);
  CHECK(again.codes.equals(quantized.codes));
  CHECK(again.scale.equals(quantized.scale));
  CHECK(again.zeros == quantized.zeros);
  CHECK(again.clipped == quantized.clipped);
  CHECK(again.snr_db == doctest::Approx(quantized.snr_db));
  // On several threads: the same bytes.
  ThreadPool pool(3);
  const auto threaded = min_max_grid(weight, type, granularity, options, &pool);
  REQUIRE(threaded);
  const QuantizedTensor parallel = round_to_nearest(weight, *threaded, &pool);
  CHECK(parallel.codes.equals(quantized.codes));
  CHECK(parallel.scale.equals(quantized.scale));
  CHECK(parallel.snr_db == quantized.snr_db);
}

TEST_CASE("every granularity and code type is that of a slow reference") {
  const Tensor small = random_weight({3, 5, 7}, 1);
  for (const Granularity& granularity : all_granularities(small.dims()))
    for (const QuantizedType& type : all_types()) {
      CAPTURE(name(type.storage));
      CAPTURE(type.bits);
      CAPTURE(granularity.axis);
      CAPTURE(granularity.block);
      check_against_reference(small, type, granularity, {});
      if (type.storage == DType::float4e2m1 || type.storage == DType::int8) {
        check_against_reference(small, type, granularity, {.scale_type = DType::float16});
        check_against_reference(small, type, granularity, {.scale_type = DType::float8e8m0});
        check_against_reference(small, type, granularity, {.power_of_two = true});
      }
      if (type.storage == DType::float4e2m1)
        check_against_reference(small, type, granularity, {.scale_type = DType::float8e4m3fn});
    }
}

TEST_CASE("weights of more than one piece") {
  const Tensor large = random_weight({67, 1031}, 2);
  for (const Granularity& granularity :
       {Granularity::per_tensor(), Granularity::per_channel(0), Granularity::per_channel(1),
        Granularity::per_block(0, 32), Granularity::per_block(1, 32)})
    for (const QuantizedType& type : {QuantizedType{4, true, DType::int4}, QuantizedType{2, false, DType::uint2}}) {
      CAPTURE(granularity.axis);
      check_against_reference(large, type, granularity, {});
      check_against_reference(large.cast(DType::float16), type, granularity, {});
    }
}

TEST_CASE("floats at odd addresses, as a mapped file has them") {
  const Tensor weight = random_weight({40, 50}, 3);
  auto moved = std::make_shared<std::vector<std::byte>>(weight.byte_size() + 1);
  std::memcpy(moved->data() + 1, weight.bytes().data(), weight.byte_size());
  const Tensor odd = Tensor::view(DType::float32, {40, 50}, std::span(*moved).subspan(1), moved);
  const QuantizedType type{4, false, DType::uint4};
  const Granularity blocks = Granularity::per_block(0, 32);
  const QuantizedTensor expected = round_to_nearest(weight, *min_max_grid(weight, type, blocks));
  const QuantizedTensor found = round_to_nearest(odd, *min_max_grid(odd, type, blocks));
  CHECK(found.codes.equals(expected.codes));
  CHECK(found.zero_point.equals(expected.zero_point));
}

TEST_CASE("NaN and infinity anywhere are found") {
  const QuantizedType type{8, true, DType::int8};
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY})
    for (const std::int64_t at : {0, 37, 16384, 20000, 20098}) {
      Tensor weight = random_weight({101, 199}, 4);
      weight.mutable_data<float>()[static_cast<std::size_t>(at)] = bad;
      for (const Granularity& granularity :
           {Granularity::per_tensor(), Granularity::per_channel(0), Granularity::per_channel(1),
            Granularity::per_block(1, 16)})
        CHECK_FALSE(min_max_grid(weight, type, granularity));
    }
}

TEST_CASE("powers of two of a block are those with the least squared error of the two that may be") {
  const Tensor weight = random_weight({6, 64}, 5);
  const QuantizedType type{4, true, DType::float4e2m1};
  const Granularity blocks = Granularity::per_block(1, 32);
  const auto grid = min_max_grid(weight, type, blocks, {.scale_type = DType::float8e8m0});
  REQUIRE(grid);
  const std::vector<float> values = weight.to_floats();
  int halved = 0;
  for (std::size_t g = 0; g < grid->parameters.size(); ++g) {
    float largest = 0;
    for (std::size_t i = g * 32; i < g * 32 + 32; ++i) largest = std::max(largest, std::fabs(values[i]));
    const float covering = std::exp2(std::ceil(std::log2(largest / 6)));
    const auto error_of = [&](float scale) {
      double error = 0;
      for (std::size_t i = g * 32; i < g * 32 + 32; ++i) {
        const QuantizationParameters p{scale, 0};
        error += std::pow(static_cast<double>(values[i] - dequantize(quantize(values[i], p, type), p, type)), 2);
      }
      return error;
    };
    const bool half = error_of(covering / 2) < error_of(covering);
    halved += half;
    CHECK(grid->parameters[g].scale == (half ? covering / 2 : covering));
  }
  CHECK(halved > 0);
}

TEST_CASE("scales of float8 leave zeros and large blocks what they are") {
  std::vector<float> values(48, 0.0F);
  for (std::size_t i = 0; i < 16; ++i) values[i] = static_cast<float>(i) * 100;
  for (std::size_t i = 32; i < 48; ++i) values[i] = 0.001F;
  const Tensor weight = Tensor::of<float>({3, 16}, values);
  const QuantizedType type{4, true, DType::float4e2m1};
  const auto grid = min_max_grid(weight, type, Granularity::per_block(1, 16), {.scale_type = DType::float8e4m3fn});
  REQUIRE(grid);
  CHECK(grid->outer_scale == 1500.0F / 6 / 448);
  const QuantizedTensor quantized = round_to_nearest(weight, *grid);
  CHECK(quantized.scale.to_floats()[0] == 448.0F);
  CHECK(quantized.scale.to_floats()[1] > 0);
  CHECK(quantized.zeros >= 17);
  const auto nothing = min_max_grid(Tensor(DType::float32, {2, 16}), type, Granularity::per_block(1, 16),
                                    {.scale_type = DType::float8e4m3fn});
  REQUIRE(nothing);
  CHECK(round_to_nearest(Tensor(DType::float32, {2, 16}), *nothing).zeros == 32);
}

TEST_CASE("loops on vectors are those on single numbers") {
  Random random(6);
  for (const std::int64_t count : {1, 3, 7, 8, 17, 64, 101}) {
    const auto size = static_cast<std::size_t>(count);
    std::vector<float> x(size), scale(size), zero(size);
    for (std::size_t i = 0; i < size; ++i) {
      x[i] = static_cast<float>(random.uniform(-5, 5));
      scale[i] = static_cast<float>(random.uniform(0.01, 0.1));
      zero[i] = static_cast<float>(static_cast<int>(random.uniform(0, 15)));
    }
    x[0] = 2.5F * scale[0];  // a tie
    std::vector<std::uint8_t> codes(size + 1, 77);
    RoundingSums sums;
    round_loop<std::uint8_t>(x.data(), scale.data(), zero.data(), count, 0, 15, codes.data(), sums);
    CHECK(codes[size] == 77);
    RoundingSums expected;
    for (std::size_t i = 0; i < size; ++i) {
      const float free = std::nearbyint(x[i] / scale[i]) + zero[i];
      const float code = std::clamp(free, 0.0F, 15.0F);
      CHECK(static_cast<float>(codes[i]) == code);
      const double error = static_cast<double>(x[i] - (code - zero[i]) * scale[i]);
      expected += {static_cast<double>(x[i]) * static_cast<double>(x[i]), error * error, code == zero[i], free != code};
    }
    CHECK(sums.signal == doctest::Approx(expected.signal));
    CHECK(sums.noise == doctest::Approx(expected.noise));
    CHECK(sums.zeros == expected.zeros);
    CHECK(sums.clipped == expected.clipped);
    float low = 0, high = 0;
    CHECK(range_loop(x.data(), count, low, high));
    CHECK(low == std::min(0.0F, *std::ranges::min_element(x)));
    CHECK(high == std::max(0.0F, *std::ranges::max_element(x)));
  }
}

}  // namespace
}  // namespace onnxpress
