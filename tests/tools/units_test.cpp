#include "tools/units.h"

#include <doctest/doctest.h>

#include "graph/base/error.h"

namespace onnxpress {

TEST_CASE("sizes are read in decimal and binary units") {
  CHECK(parse_size("412") == 412);
  CHECK(parse_size("2MB") == 2'000'000);
  CHECK(parse_size("1.5 KiB") == 1536);
  CHECK(parse_size("500kB") == 500'000);
  CHECK(parse_size("0") == 0);
  for (const char* wrong : {"", "MB", "2XB", "-1KB", "1e300GB", "2MB ago", "nan"}) {
    CAPTURE(wrong);
    CHECK_THROWS_WITH_AS(
        parse_size(wrong),
        fmt::format("expected a size such as 500KB or 2MiB, found '{}'", wrong).c_str(), Error);
  }
}

TEST_CASE("percentages are read with and without their sign") {
  CHECK(parse_percent("0.5%") == 0.5);
  CHECK(parse_percent("1") == 1.0);
  CHECK(parse_percent("0 %") == 0.0);
  CHECK_THROWS_AS(parse_percent("1%%"), Error);
  CHECK_THROWS_AS(parse_percent("one"), Error);
}

TEST_CASE("numbers may be fractions") {
  CHECK(parse_number("1/255") == doctest::Approx(1.0 / 255));
  CHECK(parse_number("-0.5") == -0.5);
  CHECK(parse_numbers("0.5,1/4,2").size() == 3);
  CHECK(parse_numbers("0.5,1/4,2")[1] == 0.25);
  CHECK_THROWS_AS(parse_number("1/0"), Error);
  CHECK_THROWS_AS(parse_number("1/2/3"), Error);
  CHECK_THROWS_AS(parse_numbers("1,,2"), Error);
}

TEST_CASE("dims and assignments") {
  CHECK(parse_dims("1x3x224x224") == std::vector<std::int64_t>{1, 3, 224, 224});
  CHECK_THROWS_AS(parse_dims("1x"), Error);
  CHECK_THROWS_AS(parse_dims("1x-3"), Error);
  CHECK(parse_assignment("a=b=3") == std::pair<std::string, std::string>("a=b", "3"));
  CHECK_THROWS_AS(parse_assignment("=3"), Error);
  CHECK_THROWS_AS(parse_assignment("a"), Error);
}

TEST_CASE("numbers are written for people") {
  CHECK(human_size(0) == "0 B");
  CHECK(human_size(412) == "412 B");
  CHECK(human_size(273121) == "273.1 KB");
  CHECK(human_size(999999) == "1.00 MB");
  CHECK(human_size(1.24e9) == "1.24 GB");
  CHECK(human_count(950) == "950");
  CHECK(human_count(67882) == "67.88 k");
  CHECK(grouped(0) == "0");
  CHECK(grouped(999) == "999");
  CHECK(grouped(1234567) == "1,234,567");
  CHECK(grouped(-123456) == "-123,456");
  CHECK(human_seconds(0.0123) == "12.30 ms");
  CHECK(human_seconds(200) == "3 min 20 s");
  CHECK(human_number(0.01631) == "0.01631");
  CHECK(human_number(3) == "3");
  CHECK(human_number(1e-9) == "1.00e-09");
}

}  // namespace onnxpress
