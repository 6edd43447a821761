// What a report says about the program and the machine.
#pragma once

#include <string>

namespace onnxpress {

std::string tool_version();
// The widest instruction set that the running CPU offers ("avx512_vnni", "avx2", "sse4.2", "neon").
std::string cpu_instruction_set();

}  // namespace onnxpress
