#include "passes/core/pipeline.h"

#include <doctest/doctest.h>

#include "fake_pass.h"
#include "graph/base/random.h"

namespace onnxpress {
namespace {

std::string round_trip(std::string_view text) {
  register_fakes();
  return Pipeline::parse(text).to_text();
}

std::string refusal(std::string_view text) {
  register_fakes();
  return error_of([&] { Pipeline::parse(text); });
}

TEST_CASE("pipelines as text") {
  CHECK(round_trip("plain") == "plain");
  CHECK(round_trip("") == "");
  CHECK(round_trip(" \n ") == "");
  CHECK(round_trip(" plain ,\n fake { ratio = 50% , bits=4 }\t,other{} ") ==
        "plain,fake{bits=4,ratio=50%},other");
  CHECK(round_trip("fake{comment='a,b}=''c'''}") == "fake{comment='a,b}=''c'''}");
  CHECK(round_trip("fake{comment=' padded '}") == "fake{comment=' padded '}");
  CHECK(round_trip("fake{comment=''}") == "fake{comment=''}");
  CHECK(round_trip("fake{comment=two words}") == "fake{comment=two words}");
  CHECK(Pipeline::parse("fake{comment='it''s'}").steps[0].options.text("comment") == "it's");
}

TEST_CASE("errors name the column and the nearest name") {
  CHECK(refusal("plan") == "pipeline: unknown pass 'plan' at column 1; did you mean 'plain'?");
  CHECK(refusal("plain, othr") ==
        "pipeline: unknown pass 'othr' at column 8; did you mean 'other'?");
  CHECK(refusal("plain,") == "pipeline: expected a pass name, found the end at column 7");
  CHECK(refusal(",plain") == "pipeline: expected a pass name, found ',' at column 1");
  CHECK(refusal("plain other") == "pipeline: expected ',' or the end, found 'o' at column 7");
  CHECK(refusal("fake{bits=4") == "pipeline: expected ',' or '}', found the end at column 12");
  CHECK(refusal("fake{bits}") == "pipeline: expected '=', found '}' at column 10");
  CHECK(refusal("fake{bits=}") == "pipeline: expected a value, found '}' at column 11");
  CHECK(refusal("fake{comment=a{b}}") == "pipeline: expected ',' or '}', found '{' at column 15");
  CHECK(refusal("fake{comment='a}") == "pipeline: the quote opened at column 14 is not closed");
  CHECK(refusal("fake{bits=4,bits=5}") ==
        "pipeline: option 'bits' is given twice, again at column 13");
  CHECK(refusal("plain,fake{bits=9}") ==
        "pipeline / column 7: pass 'fake': option 'bits': expected an integer from 2 to 8, found "
        "'9'");
}

std::string random_value(Random& random) {
  constexpr std::string_view characters = "ab ,{}='\"%;:*[]\\\n\t#~-";
  std::string value;
  for (std::uint64_t i = random.below(6); i > 0; --i)
    value += characters[random.below(characters.size())];
  return value;
}

TEST_CASE("random pipelines survive text and YAML") {
  register_fakes();
  Random random(11);
  for (int round = 0; round < 2000; ++round) {
    Pipeline pipeline;
    for (std::uint64_t i = random.below(5); i > 0; --i) {
      const Pass& pass = passes().find(random.below(3) ? "fake" : "other");
      std::map<std::string, std::string> given;
      if (pass.info().name == "fake") {
        if (random.below(2)) given["bits"] = std::to_string(2 + random.below(7));
        if (random.below(2)) given["ratio"] = fmt::format("{}%", random.below(101));
        if (random.below(2)) given["comment"] = random_value(random);
        if (random.below(2)) given["select"] = random_value(random);
        if (random.below(2)) given["scheme"] = "dynamic";
      }
      pipeline.steps.push_back({&pass, Options(pass.info().name, pass.info().options, given)});
    }
    const std::string text = pipeline.to_text();
    CAPTURE(text);
    const Pipeline parsed = Pipeline::parse(text);
    REQUIRE(parsed.to_text() == text);
    REQUIRE(parsed.steps.size() == pipeline.steps.size());
    for (std::size_t i = 0; i < parsed.steps.size(); ++i)
      REQUIRE(parsed.steps[i].options.to_json() == pipeline.steps[i].options.to_json());
    const std::string yaml = to_yaml(pipeline);
    CAPTURE(yaml);
    REQUIRE(parse_recipe(yaml).pipeline.to_text() == text);
  }
}

TEST_CASE("recipes") {
  register_fakes();
  const Recipe recipe = parse_recipe(R"(
passes:
  - plain
  - fake: {bits: 4, comment: "a, b"}
  - other:
calib: data.npz
max-drop: 0.5%
report: [a.json, b.md]
keep-going: true
)");
  CHECK(recipe.pipeline.to_text() == "plain,fake{bits=4,comment='a, b'},other");
  CHECK(recipe.settings == std::map<std::string, std::string>{{"calib", "data.npz"},
                                                              {"keep-going", "true"},
                                                              {"max-drop", "0.5%"},
                                                              {"report", "a.json,b.md"}});
  CHECK(parse_recipe("passes: []").pipeline.steps.empty());
}

TEST_CASE("recipe errors name the line") {
  register_fakes();
  const auto refused = [](const std::string& yaml) {
    return error_of([&] { parse_recipe(yaml); });
  };
  CHECK(refused("passes:\n  - plan\n") ==
        "recipe / step 1 at line 2 / pipeline: unknown pass 'plan' at column 1; did you mean "
        "'plain'?");
  CHECK(refused("passes: plain\n") == "recipe: expected 'passes' to be a list at line 1");
  CHECK(refused("- plain\n") == "recipe: expected 'key: value' lines");
  CHECK(refused("passes:\n  - fake: 4\n") ==
        "recipe / step 1 at line 2: expected the options of 'fake' as 'option: value' at line 2");
  CHECK(refused("calib: a\ncalib: b\n") == "recipe: 'calib' occurs twice in the recipe at line 2");
  CHECK(refused("calib: {a: b}\n") == "recipe: expected 'calib' to be one value at line 1");
  CHECK(refused("passes: [plain\n").find("recipe: ") == 0);
  CHECK(refused("passes:\n  - 'plain,other'\n") ==
        "recipe / step 1 at line 2: expected one pass, found 'plain,other'");
}

TEST_CASE("presets") {
  CHECK(error_of([] { preset("losless"); }) ==
        "unknown preset 'losless'; did you mean 'lossless'?");
  REQUIRE_FALSE(presets().empty());
  CHECK(presets()[0].first == "lossless");
}

TEST_CASE("the registry") {
  register_fakes();
  CHECK(passes().find("plain").info().name == "plain");
  CHECK(error_of([] { passes().find("plian"); }) == "unknown pass 'plian'; did you mean 'plain'?");
  const std::vector<const Pass*> members = passes().members("group");
  REQUIRE(members.size() == 2);
  CHECK(members[0]->info().name == "other");
  CHECK(passes().members("").empty());
  CHECK(error_of([] {
          passes().add(
              std::make_unique<FakePass>(PassInfo{.name = "plain", .summary = ""}, RunFunction{}));
        }) == "there is already a pass 'plain'");
}

}  // namespace
}  // namespace onnxpress
