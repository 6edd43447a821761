#include "passes/core/registry.h"

#include <algorithm>

namespace onnxpress {

// Generated from the PASS lines; a program linked without the families (a test of the layers above
// them) has none.
void register_all_passes(PassRegistry& registry);
[[gnu::weak]] void register_all_passes(PassRegistry&) {}

void PassRegistry::add(std::unique_ptr<const Pass> pass) {
  const std::string name(pass->info().name);
  require(!name.empty(), "a pass has no name");
  const bool is_new = passes_.emplace(name, std::move(pass)).second;
  require(is_new, "there is already a pass '{}'", name);
}

const Pass& PassRegistry::find(std::string_view name) const {
  const auto found = passes_.find(name);
  if (found != passes_.end()) return *found->second;
  std::vector<std::string> names;
  for (const auto& [known, pass] : passes_) names.push_back(known);
  const std::string near = nearest_name(name, names);
  fail("unknown pass '{}'{}", name, near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

std::vector<const Pass*> PassRegistry::all() const {
  std::vector<const Pass*> all;
  for (const auto& [name, pass] : passes_) all.push_back(pass.get());
  return all;
}

std::vector<const Pass*> PassRegistry::members(std::string_view group) const {
  std::vector<const Pass*> members;
  for (const Pass* pass : all())
    if (!group.empty() && pass->info().group == group) members.push_back(pass);
  std::ranges::stable_sort(members, {}, [](const Pass* pass) { return pass->info().group_order; });
  return members;
}

PassRegistry& passes() {
  static PassRegistry registry = [] {
    PassRegistry built;
    register_all_passes(built);
    return built;
  }();
  return registry;
}

}  // namespace onnxpress
