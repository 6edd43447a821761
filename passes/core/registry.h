// Passes by name; plugins register the same way.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "passes/core/pass.h"

namespace onnxpress {

class PassRegistry {
 public:
  // Throws Error when the name is taken.
  void add(std::unique_ptr<const Pass> pass);
  // Throws Error with the nearest name when there is none.
  const Pass& find(std::string_view name) const;
  std::vector<const Pass*> all() const;                         // by name
  std::vector<const Pass*> members(std::string_view group) const;  // in group order

 private:
  std::map<std::string, std::unique_ptr<const Pass>, std::less<>> passes_;
};

// All passes compiled in, and those of loaded plugins.
PassRegistry& passes();

// Loads a shared library built with ONNXPRESS_PLUGIN (passes/core/plugin.h) and adds its passes to
// passes(): its ABI string must equal ours. Throws Error naming both strings otherwise. The library
// stays loaded.
void load_plugin(const std::filesystem::path& path);
// Hash of the public headers, compiler, standard library, oneDNN major and sanitizer flags.
std::string_view abi_string();

}  // namespace onnxpress

// One per pass file: PASS(prune_magnitude) { registry.add(std::make_unique<PruneMagnitude>()); }
// CMake finds the line and generates the call.
#define PASS(name) void register_pass_##name(::onnxpress::PassRegistry& registry)
