#include "tools/output_spool.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "graph/base/error.h"
#include "graph/ops/compute_type.h"

namespace onnxpress {

namespace {

DType numpy_type(DType type) {
  if (is_float(type) && type != DType::float32 && type != DType::float64) return DType::float32;
  if (is_sub_byte(type)) return DType::int8;
  return type;
}

}  // namespace

OutputSpool::OutputSpool(std::string name, bool for_numpy)
    : name_(std::move(name)), for_numpy_(for_numpy), file_(std::tmpfile()) {
  require(file_ != nullptr, "cannot create a temporary file: {}", std::strerror(errno));
}

void OutputSpool::append(const Tensor& output, std::int64_t samples, std::int64_t rows) {
  require(output.dtype() != DType::string, "output '{}' holds strings: they cannot be stored",
          name_);
  Dims dims = output.dims();
  const bool scalar = dims.empty();
  const bool sampled = !scalar && rows > 0 && dims[0] > 0 && dims[0] % rows == 0;
  if (batches_ == 0) {
    type_ = output.dtype();
    stored_ = for_numpy_ ? numpy_type(type_) : type_;
    dims_ = dims;
    if (sampled) dims_[0] = 0;
    scalar_ = scalar;
    sampled_ = sampled;
  } else {
    bool fits = output.dtype() == type_ && scalar == scalar_ && sampled == sampled_ &&
                (scalar || sampled) && dims.size() == dims_.size();
    for (std::size_t axis = 1; fits && axis < dims.size(); ++axis) fits = dims[axis] == dims_[axis];
    require(fits, "output '{}': batches of shapes {} and {} do not make one array", name_,
            to_string(dims_), to_string(dims));
  }
  ++batches_;
  std::int64_t kept = output.size();
  if (sampled) {
    dims_[0] += dims[0] / rows * samples;
    kept = kept / rows * samples;
  }
  if (is_float(type_)) {
    const Tensor values = output.cast(DType::float64);
    for (const double value : values.data<double>().first(static_cast<std::size_t>(kept)))
      non_finite_.count(value);
  }
  // Sub-byte rows need not end at a byte: such outputs are spooled unpacked and packed by whole().
  const DType spooled = movable_type(stored_);
  const Tensor stored = output.cast(spooled);
  const std::size_t bytes = packed_bytes(spooled, static_cast<std::size_t>(kept));
  require(std::fwrite(stored.bytes().data(), 1, bytes, file_.get()) == bytes,
          "cannot write a temporary file: {}", std::strerror(errno));
}

Dims OutputSpool::dims() const {
  if (scalar_ && batches_ > 1) return {batches_};
  return dims_;
}

void OutputSpool::read(const std::function<void(std::span<const std::byte>)>& put) const {
  require(std::fflush(file_.get()) == 0, "cannot write a temporary file: {}", std::strerror(errno));
  std::rewind(file_.get());
  std::array<std::byte, 65536> buffer;
  while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), file_.get()))
    put(std::span(buffer).first(got));
}

Tensor OutputSpool::whole() const {
  const DType spooled = movable_type(stored_);
  Tensor tensor = Tensor::uninitialized(spooled, dims());
  std::span<std::byte> rest = tensor.mutable_bytes();
  read([&](std::span<const std::byte> bytes) {
    std::memcpy(rest.data(), bytes.data(), bytes.size());
    rest = rest.subspan(bytes.size());
  });
  return tensor.cast(stored_);
}

}  // namespace onnxpress
