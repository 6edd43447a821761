// One output of a model, collected batch by batch in an unnamed temporary file.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "graph/exec/metrics.h"
#include "graph/ir/tensor.h"

namespace onnxpress {

class OutputSpool {
 public:
  // `for_numpy` stores types that NumPy does not have as one that holds them: bfloat16, float16
  // and fp8 as float32, 4- and 2-bit integers as int8.
  OutputSpool(std::string name, bool for_numpy);

  // Appends the first `samples` of the `rows` samples that a run computed. An output whose first
  // axis does not count samples is kept as it is when there is one batch only, and scalars are
  // stacked. Throws Error when batches do not fit together.
  void append(const Tensor& output, std::int64_t samples, std::int64_t rows);

  const std::string& name() const { return name_; }
  DType type() const { return type_; }  // as the model has it
  DType stored_type() const { return stored_; }
  const NonFinite& non_finite() const { return non_finite_; }  // of what was appended
  Dims dims() const;
  // Feeds all bytes in order; may be called again.
  void read(const std::function<void(std::span<const std::byte>)>& put) const;
  Tensor whole() const;

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string name_;
  bool for_numpy_;
  DType type_ = DType::undefined, stored_ = DType::undefined;
  Dims dims_;
  std::int64_t batches_ = 0;
  bool scalar_ = false, sampled_ = false;
  NonFinite non_finite_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace onnxpress
