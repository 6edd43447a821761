// One output of a model, collected batch by batch: a tensor, or the tensors of a sequence or
// optional.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/runtime_value.h"
#include "tools/output_spool.h"

namespace onnxpress {

class RunOutput {
 public:
  // As OutputSpool.
  RunOutput(std::string name, bool for_numpy) : name_(std::move(name)), for_numpy_(for_numpy) {}

  // As OutputSpool::append, element by element. Throws Error when a batch is of another kind or
  // length than those before.
  void append(const RuntimeValue& output, std::int64_t samples, std::int64_t rows);

  const std::string& name() const { return name_; }
  // Its tensors: one, named as the output, or those of a sequence, named `name.0` and so on; none
  // of an empty optional.
  const std::vector<OutputSpool>& parts() const { return parts_; }
  // All batches together.
  RuntimeValue whole() const;

 private:
  // Kinds from the outside in: {optional, sequence, tensor}.
  std::vector<Type::Kind> kinds_;
  std::string name_;
  bool for_numpy_;
  std::vector<OutputSpool> parts_;
};

}  // namespace onnxpress
