#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "graph/base/random.h"
#include "passes/quantize/closest_codes.h"

namespace onnxpress {
namespace {

// A random row with its factor, scales of two blocks.
struct Row {
  std::vector<float> factor, target;
  std::vector<QuantizationParameters> parameters;
  QuantizedType type;

  Row(std::size_t depth, const QuantizedType& of, std::uint64_t seed) : type(of) {
    Random random(seed);
    factor.resize(depth * depth);
    for (std::size_t i = 0; i < depth; ++i) {
      for (std::size_t j = 0; j < i; ++j) factor[i * depth + j] = static_cast<float>(random.normal());
      factor[i * depth + i] = 0.2F + static_cast<float>(random.uniform());
      target.push_back(static_cast<float>(random.normal()));
      parameters.push_back({i < depth / 2 ? 0.4F : 0.55F, of.symmetric ? 0 : (of.min() + of.max()) / 2});
    }
  }

  CodeSearch search() const { return {factor, target, parameters, type}; }

  double error(const std::vector<std::int32_t>& codes) const {
    const std::size_t depth = target.size();
    double total = 0;
    for (std::size_t j = 0; j < depth; ++j) {
      double sum = 0;
      for (std::size_t i = j; i < depth; ++i)
        sum += (static_cast<double>(target[i]) - static_cast<double>(dequantize(codes[i], parameters[i]))) *
               static_cast<double>(factor[i * depth + j]);
      total += sum * sum;
    }
    return total;
  }

  std::vector<std::int32_t> nearest() const {
    std::vector<std::int32_t> codes;
    for (std::size_t i = 0; i < target.size(); ++i)
      codes.push_back(static_cast<std::int32_t>(quantize(target[i], parameters[i], type)));
    return codes;
  }

  double least_of_all() const {
    std::vector<std::int32_t> codes(target.size(), static_cast<std::int32_t>(type.min()));
    double least = error(codes);
    for (;;) {
      std::size_t i = 0;
      while (i < codes.size() && codes[i] == type.max()) codes[i++] = static_cast<std::int32_t>(type.min());
      if (i == codes.size()) return least;
      ++codes[i];
      least = std::min(least, error(codes));
    }
  }
};

constexpr QuantizedType int3{3, true, DType::int8}, uint3{3, false, DType::uint8};

TEST_CASE("the codes found are the best of all") {
  for (const QuantizedType& type : {int3, uint3})
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
      const Row row(4, type, seed);
      std::vector<std::int32_t> codes = row.nearest();
      const double before = row.error(codes);
      const bool changed = find_closest_codes(row.search(), 1'000'000, codes);
      CHECK(row.error(codes) == doctest::Approx(row.least_of_all()).epsilon(1e-9));
      CHECK(changed == (row.error(codes) < before));
      CHECK_FALSE(find_closest_codes(row.search(), 1'000'000, codes));
    }
}

TEST_CASE("a search that is cut off never makes codes worse") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed)
    for (const std::int64_t most : {0, 5, 50, 500}) {
      const Row row(24, uint3, seed);
      std::vector<std::int32_t> codes = row.nearest();
      const double before = row.error(codes);
      const bool changed = find_closest_codes(row.search(), most, codes);
      CHECK((changed ? row.error(codes) < before : row.error(codes) == before));
      CHECK((most > 0 || !changed));
      for (const std::int32_t code : codes) CHECK((code >= uint3.min() && code <= uint3.max()));
    }
}

}  // namespace
}  // namespace onnxpress
