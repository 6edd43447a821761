// A plugin of some other onnxpress.
namespace onnxpress {
class PassRegistry;
}

extern "C" const char* onnxpress_plugin_abi() { return "onnxpress-abi/0 headers=0000000000000000"; }
extern "C" void onnxpress_plugin_register(onnxpress::PassRegistry&) { __builtin_trap(); }
