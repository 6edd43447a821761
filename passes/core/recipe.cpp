// Recipes: pipelines and settings in YAML.
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "passes/core/pipeline.h"

namespace onnxpress {
namespace {

std::string at_line(const YAML::Node& node) {
  return node.Mark().is_null() ? std::string() : fmt::format(" at line {}", node.Mark().line + 1);
}

std::string scalar(const YAML::Node& node, std::string_view what) {
  require(node.IsScalar(), "expected {} to be one value{}", what, at_line(node));
  return node.Scalar();
}

// Keys in file order, each once.
std::vector<std::pair<std::string, YAML::Node>> entries(const YAML::Node& map,
                                                        std::string_view what) {
  std::vector<std::pair<std::string, YAML::Node>> list;
  std::set<std::string> seen;
  for (const auto& entry : map) {
    const std::string key = scalar(entry.first, fmt::format("a key of {}", what));
    require(seen.insert(key).second, "'{}' occurs twice in {}{}", key, what, at_line(entry.first));
    list.emplace_back(key, entry.second);
  }
  return list;
}

std::string step_text(const YAML::Node& node) {
  if (node.IsScalar()) return node.Scalar();
  require(node.IsMap() && node.size() == 1, "expected a pass name or 'name: {{option: value}}'{}",
          at_line(node));
  const auto [pass, options] = entries(node, "a step").front();
  if (options.IsNull()) return pass;
  require(options.IsMap(), "expected the options of '{}' as 'option: value'{}", pass,
          at_line(options));
  std::string text;
  for (const auto& [key, value] : entries(options, fmt::format("the options of '{}'", pass))) {
    if (!text.empty()) text += ',';
    text += fmt::format("{}={}", key,
                        quote_option_value(scalar(value, fmt::format("option '{}'", key))));
  }
  return fmt::format("{}{{{}}}", pass, text);
}

Pipeline parse_steps(const YAML::Node& list) {
  Pipeline pipeline;
  if (list.IsNull()) return pipeline;
  require(list.IsSequence(), "expected 'passes' to be a list{}", at_line(list));
  for (const YAML::Node& node : list)
    in_context([&] { return fmt::format("step {}{}", pipeline.steps.size() + 1, at_line(node)); },
               [&] {
                 const std::string text = step_text(node);
                 Pipeline step = Pipeline::parse(text);
                 require(step.steps.size() == 1, "expected one pass, found '{}'", text);
                 pipeline.steps.push_back(std::move(step.steps.front()));
               });
  return pipeline;
}

std::string setting(const std::string& key, const YAML::Node& value) {
  if (!value.IsSequence()) return scalar(value, fmt::format("'{}'", key));
  std::string joined;
  for (const YAML::Node& item : value) {
    if (!joined.empty()) joined += ',';
    joined += scalar(item, fmt::format("each item of '{}'", key));
  }
  return joined;
}

// `null` and the like would not come back as text.
void emit_value(YAML::Emitter& out, const std::string& value) {
  const bool is_plain = std::ranges::all_of(value, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '%';
  });
  const bool is_null = value.empty() || value == "null" || value == "Null" || value == "NULL";
  if (!is_plain || is_null) out << YAML::DoubleQuoted;
  out << value;
}

}  // namespace

Recipe parse_recipe(const std::string& yaml) {
  return in_context([] { return "recipe"; },
                    [&] {
                      Recipe recipe;
                      try {
                        const YAML::Node root = YAML::Load(yaml);
                        require(root.IsMap(), "expected 'key: value' lines");
                        for (const auto& [key, value] : entries(root, "the recipe")) {
                          if (key == "passes")
                            recipe.pipeline = parse_steps(value);
                          else
                            recipe.settings[key] = setting(key, value);
                        }
                      } catch (const YAML::Exception& error) {
                        fail("{} at line {}", error.msg, error.mark.line + 1);
                      }
                      return recipe;
                    });
}

std::string to_yaml(const Pipeline& pipeline) {
  YAML::Emitter out;
  out << YAML::BeginMap << YAML::Key << "passes" << YAML::Value << YAML::BeginSeq;
  for (const PipelineStep& step : pipeline.steps) {
    const std::string name(step.pass->info().name);
    if (step.options.to_text().empty()) {
      out << name;
      continue;
    }
    out << YAML::BeginMap << YAML::Key << name << YAML::Value << YAML::BeginMap;
    for (const OptionSpec& spec : step.pass->info().options) {
      if (!step.options.given(spec.name)) continue;
      out << YAML::Key << std::string(spec.name) << YAML::Value;
      emit_value(out, step.options.given_text(spec.name));
    }
    out << YAML::EndMap << YAML::EndMap;
  }
  out << YAML::EndSeq << YAML::EndMap;
  return std::string(out.c_str()) + '\n';
}

}  // namespace onnxpress
