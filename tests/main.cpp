#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

// Tests ask for more memory than there is: under AddressSanitizer too they are told that they
// cannot have it.
#if defined(__SANITIZE_ADDRESS__)
#define ONNXPRESS_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ONNXPRESS_ADDRESS_SANITIZER
#endif
#endif
#ifdef ONNXPRESS_ADDRESS_SANITIZER
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
#endif
