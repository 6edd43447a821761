// OpDef: one row per operator and range of versions; kernel rows beside them.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ops/gradient.h"
#include "graph/ops/infer.h"
#include "graph/ops/kernel.h"

namespace onnxpress {

// How one axis of an operand relates to the first output (channel pruning, per-channel
// quantization).
struct AxisRole {
  enum class Kind {
    output,   // becomes axis `output_axis` of the output
    reduced,  // summed over (contraction)
    window,   // a kernel's spatial axis
    other,
  };
  Kind kind = Kind::other;
  std::int64_t output_axis = -1;
};
// Per operand (input), per axis; an operand without an entry has unknown roles.
using OperandAxes = std::vector<std::vector<AxisRole>>;

struct Cost {
  std::int64_t macs = 0;  // multiply-accumulates; 0 for data movement and elementwise
};

struct OpDef {
  std::string name;
  std::string domain;                                             // "" for ai.onnx
  std::int64_t since = 1;                                         // first opset version of the row
  std::int64_t until = std::numeric_limits<std::int64_t>::max();  // last, inclusive
  void (*infer)(InferContext&) = nullptr;
  Kernel (*prepare)(const PrepareContext&) = nullptr;  // the plain reference kernel
  OperandAxes (*axes)(const Node&) = nullptr;          // optional
  // Optional; input and output types concrete. nullptr: zero MACs.
  Cost (*cost)(const PrepareContext&) = nullptr;
  bool deterministic = true;  // false for random generators: never folded
};

// A faster kernel for the same operator.
struct KernelDef {
  std::string name;
  std::string domain;
  std::string backend;  // "onednn", "vector"
  bool (*supports)(const PrepareContext&) = nullptr;
  Kernel (*prepare)(const PrepareContext&) = nullptr;
  // Optional: whether the kernel can take `op` behind context.post_ops(). nullptr: none.
  bool (*fuses)(const PrepareContext&, const PostOp& op) = nullptr;
  // Input 0 and output 0 may be, and are best, images with the channels last.
  bool channels_last = false;
};

class OpRegistry {
 public:
  void add(OpDef def);
  void add(KernelDef def);
  void add(GradientDef def);
  // The row for the node's domain, type and opset version, or nullptr.
  const OpDef* find(const Node& node) const;
  const OpDef* find(std::string_view domain, std::string_view name, std::int64_t version) const;
  std::vector<const KernelDef*> kernels(const Node& node) const;
  // Rows for the node's version, the plain one last.
  std::vector<const GradientDef*> gradients(const Node& node) const;
  std::vector<const GradientDef*> all_gradients() const;  // sorted by domain, name, in order of addition
  std::vector<const OpDef*> all() const;  // sorted by domain, name, since

 private:
  std::map<std::pair<std::string, std::string>, std::vector<OpDef>, std::less<>> ops_;
  std::map<std::pair<std::string, std::string>, std::vector<KernelDef>, std::less<>> kernels_;
  std::map<std::pair<std::string, std::string>, std::vector<GradientDef>, std::less<>> gradients_;
};

// All families compiled in (built on first use).
const OpRegistry& operators();

}  // namespace onnxpress

// One per file under graph/ops and graph/kernels: OPERATORS(convolution) { registry.add({...}); }
// CMake finds the line and generates the call.
#define OPERATORS(family) void register_operators_##family(::onnxpress::OpRegistry& registry)
