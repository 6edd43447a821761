#include "passes/core/group.h"

#include <algorithm>
#include <array>

#include "passes/core/registry.h"

namespace onnxpress {
namespace {

constexpr std::array group_options = {
    OptionSpec{.name = "skip",
               .kind = OptionSpec::Kind::text,
               .help = "members to leave out, separated by ';'"},
    OptionSpec{.name = "rounds",
               .kind = OptionSpec::Kind::integer,
               .default_value = "16",
               .help = "times the members are run at most",
               .min = 1,
               .max = 1000},
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(';', begin), text.size());
    const std::size_t first = text.find_first_not_of(' ', begin);
    if (first < end) {
      const std::size_t last = text.find_last_not_of(' ', end - 1);
      parts.push_back(text.substr(first, last + 1 - first));
    }
    begin = end + 1;
  }
  return parts;
}

void add_counts(Json& counts, std::string_view member, const Json& found) {
  for (const auto& [key, value] : found.items()) {
    const std::string name = fmt::format("{}.{}", member, key);
    counts[name] = counts.value(name, std::int64_t{0}) + value.get<std::int64_t>();
  }
}

}  // namespace

std::vector<OptionSpec> GroupPass::options(std::initializer_list<OptionSpec> own) {
  std::vector<OptionSpec> all(group_options.begin(), group_options.end());
  all.insert(all.end(), own);
  return all;
}

Options GroupPass::member_options(const Pass& member, const Options& options) const {
  const auto has = [](std::span<const OptionSpec> specs, std::string_view name) {
    return std::ranges::find(specs, name, &OptionSpec::name) != specs.end();
  };
  std::map<std::string, std::string> handed;
  for (const OptionSpec& own : std::span(options_).subspan(group_options.size())) {
    if (has(member.info().options, own.name))
      handed.emplace(own.name, options.given_text(own.name));
  }
  return Options(member.info().name, member.info().options, handed);
}

std::vector<const Pass*> GroupPass::members(const Options& options) const {
  std::vector<const Pass*> members = passes().members(info_.name);
  for (const std::string& name : split(options.text("skip")))
    std::erase_if(members, [&](const Pass* pass) { return pass->info().name == name; });
  return members;
}

std::int64_t GroupPass::required_opset(const Model& model, const Options& options) const {
  std::int64_t opset = info_.min_opset;
  for (const Pass* member : members(options))
    opset = std::max(opset, member->required_opset(model, member_options(*member, options)));
  return opset;
}

void GroupPass::check(const Options& options) const {
  std::vector<std::string> names;
  for (const Pass* member : passes().members(info_.name)) names.emplace_back(member->info().name);
  for (const std::string& name : split(options.text("skip"))) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string near = nearest_name(name, names);
    fail("pass '{}': option 'skip': '{}' is not one of its members{}", info_.name, name,
         near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
  }
}

Outcome GroupPass::run(Model& model, PassContext& context) const {
  Outcome total;
  const std::vector<const Pass*> active = members(context.options);
  std::vector<NearMiss> last_misses;
  for (std::int64_t round = 0; round < context.options.integer("rounds"); ++round) {
    bool changed = false;
    last_misses.clear();
    for (const Pass* member : active) {
      const Options options = member_options(*member, context.options);
      PassContext inner{.options = options,
                        .pool = context.pool,
                        .seed = context.seed,
                        .calibration = context.calibration,
                        .training = context.training,
                        .teachers = context.teachers,
                        .near_misses = context.near_misses ? &last_misses : nullptr,
                        .calibration_cache = context.calibration_cache,
                        .calibrated = context.calibrated,
                        .progress = context.progress};
      Outcome outcome =
          in_context([&] { return fmt::format("running member {}", member->info().name); },
                     [&] { return member->run(model, inner); });
      changed |= outcome.changed;
      if (outcome.effect && *outcome.effect > total.effect.value_or(Effect::exact)) total.effect = outcome.effect;
      if (outcome.effect == Effect::approximate)
        total.min_snr_db = total.min_snr_db > 0 ? std::min(total.min_snr_db, outcome.min_snr_db) : outcome.min_snr_db;
      add_counts(total.counts, member->info().name, outcome.counts);
      for (std::string& note : outcome.notes) {
        if (std::find(total.notes.begin(), total.notes.end(), note) == total.notes.end())
          total.notes.push_back(std::move(note));
      }
      for (Json& layer : outcome.layers) {
        Json row = {{"pass", member->info().name}};
        row.update(layer);
        total.layers.push_back(std::move(row));
      }
    }
    total.changed |= changed;
    if (!changed) break;
  }
  if (context.near_misses)
    context.near_misses->insert(context.near_misses->end(), last_misses.begin(), last_misses.end());
  return total;
}

}  // namespace onnxpress
