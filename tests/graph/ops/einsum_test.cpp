#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

std::string einsum(const std::string& equation, std::string_view a, std::string_view b = {}) {
  std::string body = fmt::format("initializer a: {}\n", a);
  if (!b.empty()) body += fmt::format("initializer b: {}\n", b);
  return body +
         fmt::format("y = Einsum(a{}) {{equation=\"{}\"}}\n", b.empty() ? "" : ", b", equation);
}

constexpr std::string_view two_by_two = "float32[2,2] = {1,2,3,4}";

TEST_CASE("Einsum multiplies, sums, transposes and takes diagonals") {
  check_y(einsum("ij,jk->ik", two_by_two, "float32[2,1] = {10,100}"), "float32[2,1]{210,430}");
  check_y(einsum("ij,kj->ki", two_by_two, "float32[1,2] = {10,100}"), "float32[1,2]{210,430}");
  check_y(einsum("ji", two_by_two), "float32[2,2]{1,3,2,4}");  // alphabetical
  check_y(einsum("ij->", two_by_two), "float32[]{10}");
  check_y(einsum("ij->j", two_by_two), "float32[2]{4,6}");
  check_y(einsum("ii->i", two_by_two), "float32[2]{1,4}");
  check_y(einsum("ii", two_by_two), "float32[]{5}");
  check_y(einsum("i,j->ji", "float32[2] = {1,2}", "float32[3] = {1,10,100}"),
          "float32[3,2]{1,2,10,20,100,200}");
  check_y(einsum("i,i", "int32[2] = {3,4}", "int32[2] = {5,6}"), "int32[]{39}");
  check_y(einsum("i,i->i", "float16[2] = {3,4}", "float16[2] = {0.5,2}"), "float16[2]{1.5,8}");
  check_y(einsum(",i->i", "float32[] = {3}", "float32[2] = {1,2}"), "float32[2]{3,6}");
}

TEST_CASE("ellipses of Einsum broadcast from the right") {
  check_y(einsum("...i,...i->...", two_by_two, "float32[1,2] = {10,1}"), "float32[2]{12,34}");
  check_y(einsum("...,...", "float32[2] = {1,2}", "float32[2,1] = {10,100}"),
          "float32[2,2]{10,20,100,200}");
  check_y(einsum("b...->...b", "float32[2,1,2] = {1,2,3,4}"), "float32[1,2,2]{1,3,2,4}");
  check_y(einsum("...->...", "float32[2] = {1,2}"), "float32[2]{1,2}");
}

TEST_CASE("axes of 1 stretch, also on a diagonal; axes of 0 sum to 0") {
  check_y(einsum("ij,ij->i", two_by_two, "float32[1,2] = {10,1}"), "float32[2]{12,34}");
  check_y(einsum("ij,jk->ik", "float32[2,0] = {}", "float32[0,1] = {}"), "float32[2,1]{0,0}");
}

TEST_CASE("Einsum of three operands equals the nested sums") {
  const Computed computed(R"(initializer a: float32[3,4] = random(1)
initializer b: float32[4,5] = random(2)
initializer c: float32[5,3] = random(3)
y = Einsum(a, b, c) {equation="ab,bc,cd->da"}
)");
  const auto a = computed["a"].data<float>(), b = computed["b"].data<float>(),
             c = computed["c"].data<float>(), y = computed["y"].data<float>();
  REQUIRE(y.size() == 9);
  for (std::size_t d = 0; d < 3; ++d)
    for (std::size_t i = 0; i < 3; ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < 4; ++j)
        for (std::size_t k = 0; k < 5; ++k)
          sum += double{a[i * 4 + j]} * b[j * 5 + k] * c[k * 3 + d];
      CHECK(y[d * 3 + i] == doctest::Approx(sum).epsilon(1e-5));
    }
}

TEST_CASE("Einsum refuses what does not fit") {
  for (const char* equation : {"", "ij", "ij,jk->iz", "ij,jk->ii", "i,jk->ik", "ij,jk->ik->",
                               "i1,jk->ik", "i..j,jk->ik", "...i...,jk->ik", "ij,jk,kl->il"}) {
    CAPTURE(equation);
    CHECK_THROWS_AS(Computed(einsum(equation, two_by_two, "float32[2,2] = ones")), Error);
  }
  CHECK_THROWS_AS(Computed(einsum("ij,jk->ik", two_by_two, "float32[3,1] = ones")), Error);
}

}  // namespace
}  // namespace onnxpress
