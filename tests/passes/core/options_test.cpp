#include <doctest/doctest.h>

#include "fake_pass.h"

namespace onnxpress {
namespace {

Options fake(const std::map<std::string, std::string>& given) {
  return Options("fake", fake_options, given);
}

std::string refusal(const std::string& name, const std::string& value) {
  return error_of([&] { fake({{name, value}}); });
}

TEST_CASE("defaults and given values") {
  const Options defaults = fake({});
  CHECK(defaults.integer("bits") == 8);
  CHECK(defaults.number("ratio") == 0.5);
  CHECK(defaults.flag("per_channel"));
  CHECK(defaults.text("scheme") == "static");
  CHECK(defaults.text("select").empty());
  CHECK_FALSE(defaults.given("bits"));
  CHECK(defaults.to_text().empty());

  const Options given =
      fake({{"bits", "4"}, {"ratio", "25%"}, {"per_channel", "no"}, {"select", "op:Conv;!first"}});
  CHECK(given.integer("bits") == 4);
  CHECK(given.number("ratio") == 0.25);
  CHECK_FALSE(given.flag("per_channel"));
  CHECK(given.given("bits"));
  CHECK(given.to_text() == "bits=4,ratio=25%,per_channel=no,select=op:Conv;!first");
  CHECK(
      given.to_json().dump() ==
      R"({"bits":4,"ratio":0.25,"per_channel":false,"scheme":"static","select":"op:Conv;!first","comment":"","limit":null})");
}

TEST_CASE("wrong values name what is expected") {
  CHECK(refusal("bits", "9") ==
        "pass 'fake': option 'bits': expected an integer from 2 to 8, found '9'");
  CHECK(refusal("bits", "4.5") ==
        "pass 'fake': option 'bits': expected an integer from 2 to 8, found '4.5'");
  CHECK(refusal("bits", "") ==
        "pass 'fake': option 'bits': expected an integer from 2 to 8, found ''");
  CHECK(
      refusal("bits", "99999999999999999999") ==
      "pass 'fake': option 'bits': expected an integer from 2 to 8, found '99999999999999999999'");
  CHECK(refusal("ratio", "120%") ==
        "pass 'fake': option 'ratio': expected a number from 0 to 1, found '120%'");
  CHECK(refusal("ratio", "nan") ==
        "pass 'fake': option 'ratio': expected a number from 0 to 1, found 'nan'");
  CHECK(refusal("per_channel", "maybe") ==
        "pass 'fake': option 'per_channel': expected true or false, found 'maybe'");
  CHECK(refusal("scheme", "statik") ==
        "pass 'fake': option 'scheme': expected one of static, dynamic, found 'statik'");
  CHECK(refusal("limit", "0") ==
        "pass 'fake': option 'limit': expected an integer of at least 1, found '0'");
  CHECK(refusal("bitz", "4") == "pass 'fake': unknown option 'bitz'; did you mean 'bits'?");
  CHECK(refusal("qqqqqqqq", "4") ==
        "pass 'fake': unknown option 'qqqqqqqq'; it has bits, ratio, per_channel, scheme, select, "
        "comment, limit");
  CHECK(error_of([] { Options("plain", {}, {{"a", "1"}}); }) ==
        "pass 'plain' has no options, found 'a'");
}

TEST_CASE("asking for what is not there") {
  const Options options = fake({});
  CHECK(error_of([&] { options.integer("limit"); }) == "pass 'fake': option 'limit' has no value");
  CHECK(error_of([&] { options.integer("ratio"); }) ==
        "pass 'fake': option 'ratio' is of kind number, not integer");
  CHECK(error_of([&] { options.flag("none"); }) == "pass 'fake' declares no option 'none'");
}

}  // namespace
}  // namespace onnxpress
