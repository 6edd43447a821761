#include "passes/core/plugin.h"

#include <dlfcn.h>

namespace onnxpress {
namespace {

std::string last_error() {
  const char* text = dlerror();
  return text ? text : "unknown error";
}

struct Closer {
  void operator()(void* library) const { dlclose(library); }
};

template <class Function>
Function* symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  require(found != nullptr, "it does not export '{}': not an onnxpress plugin", name);
  return reinterpret_cast<Function*>(found);
}

}  // namespace

std::string_view abi_string() { return ONNXPRESS_ABI_STRING; }

void load_plugin(const std::filesystem::path& path) {
  in_context([&] { return fmt::format("plugin '{}'", path.string()); },
             [&] {
               require(std::filesystem::is_regular_file(path), "there is no such file");
               // A name without a slash would be looked for in the system's folders.
               const std::string file = std::filesystem::absolute(path).string();
               std::unique_ptr<void, Closer> library(dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL));
               require(library != nullptr, "cannot be loaded: {}", last_error());
               const std::string_view theirs =
                   symbol<const char*()>(library.get(), "onnxpress_plugin_abi")();
               require(theirs == abi_string(),
                       "it was built for another onnxpress: expected '{}', found '{}'",
                       abi_string(), theirs);
               auto* add = symbol<void(PassRegistry&)>(library.get(), "onnxpress_plugin_register");
               void* kept =
                   library.release();  // its passes may stay in the registry, so it is never closed
               add(passes());
               static_cast<void>(kept);
             });
}

}  // namespace onnxpress
