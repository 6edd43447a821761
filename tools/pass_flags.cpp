#include "tools/pass_flags.h"

#include <algorithm>

#include "passes/core/registry.h"

namespace onnxpress {

namespace {

std::string flag_name(std::string_view option) {
  std::string name = "--" + std::string(option);
  std::ranges::replace(name, '_', '-');
  return name;
}

std::string type_name(const OptionSpec& spec) {
  switch (spec.kind) {
    case OptionSpec::Kind::integer:
      return "N";
    case OptionSpec::Kind::number:
      return "X";
    case OptionSpec::Kind::flag:
      return "true|false";
    case OptionSpec::Kind::choice:
      return std::string(spec.choices);
    case OptionSpec::Kind::selector:
      return "SELECTOR";
    case OptionSpec::Kind::text:
      break;
  }
  return "TEXT";
}

}  // namespace

void PassFlags::declare(CLI::App& app, const std::string& pass, const std::string& group,
                        const std::vector<std::string>& skipped) {
  pass_ = pass;
  for (const OptionSpec& spec : passes().find(pass).info().options) {
    const std::string name(spec.name);
    if (std::ranges::find(skipped, name) != skipped.end()) continue;
    std::string help(spec.help);
    if (!spec.default_value.empty()) help += fmt::format(" ({})", spec.default_value);
    flags_[name] = app.add_option(flag_name(name), values_[name], help)->type_name(type_name(spec))->group(group);
  }
}

PipelineStep PassFlags::step() const {
  const Pass& pass = passes().find(pass_);
  std::map<std::string, std::string> given;
  for (const auto& [name, flag] : flags_) {
    if (flag->count() == 0) continue;
    given[name] = values_.at(name);
    // One at a time, so that the message names the flag.
    in_context([&, &option = name] { return flag_name(option); },
               [&, &option = name] {
                 return Options(pass.info().name, pass.info().options, {{option, values_.at(option)}});
               });
  }
  PipelineStep step{&pass, Options(pass.info().name, pass.info().options, given)};
  pass.check(step.options);
  return step;
}

}  // namespace onnxpress
