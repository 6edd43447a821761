// What a plugin includes beside passes/core/pass.h, and the ABI string that host and plugin compare.
#pragma once

#include "generated/onnxpress_abi.h"
#include "passes/core/registry.h"

#define ONNXPRESS_TEXT_OF(x) #x
#define ONNXPRESS_TEXT(x) ONNXPRESS_TEXT_OF(x)

#if defined(__clang__)
#define ONNXPRESS_COMPILER "clang-" ONNXPRESS_TEXT(__clang_major__)
#elif defined(__GNUC__)
#define ONNXPRESS_COMPILER "gcc-" ONNXPRESS_TEXT(__GNUC__)
#else
#define ONNXPRESS_COMPILER "unknown"
#endif

#if defined(_LIBCPP_VERSION)
#define ONNXPRESS_STDLIB "libc++-" ONNXPRESS_TEXT(_LIBCPP_VERSION)
#elif defined(_GLIBCXX_RELEASE)
#define ONNXPRESS_STDLIB \
  "libstdc++-" ONNXPRESS_TEXT(_GLIBCXX_RELEASE) "-abi" ONNXPRESS_TEXT(_GLIBCXX_USE_CXX11_ABI)
#else
#define ONNXPRESS_STDLIB "unknown"
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ONNXPRESS_SANITIZER "address"
#elif __has_feature(thread_sanitizer)
#define ONNXPRESS_SANITIZER "thread"
#endif
#endif
#if !defined(ONNXPRESS_SANITIZER)
#if defined(__SANITIZE_ADDRESS__)
#define ONNXPRESS_SANITIZER "address"
#elif defined(__SANITIZE_THREAD__)
#define ONNXPRESS_SANITIZER "thread"
#else
#define ONNXPRESS_SANITIZER "none"
#endif
#endif

// Hash of the public headers, compiler, standard library, oneDNN major and sanitizer: all that a
// plugin and the command must agree on. The compiler's part is that of whoever includes this.
#define ONNXPRESS_ABI_STRING                                                               \
  "onnxpress-abi/1 headers=" ONNXPRESS_HEADERS_HASH " compiler=" ONNXPRESS_COMPILER        \
  " stdlib=" ONNXPRESS_STDLIB " onednn=" ONNXPRESS_ONEDNN_MAJOR " sanitize=" ONNXPRESS_SANITIZER

// In a plugin, outside any namespace, after its PASS(name):
//   ONNXPRESS_PLUGIN(register_pass_my_pass)
#define ONNXPRESS_PLUGIN(...)                                                      \
  extern "C" const char* onnxpress_plugin_abi() { return ONNXPRESS_ABI_STRING; }   \
  extern "C" void onnxpress_plugin_register(::onnxpress::PassRegistry& registry) { \
    for (auto* add : {__VA_ARGS__}) add(registry);                                 \
  }
