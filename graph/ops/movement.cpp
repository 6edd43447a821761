#include "graph/ops/movement.h"

#include <algorithm>
#include <cstring>

namespace onnxpress {
namespace {

// The same view with axes of one element dropped and neighbours that are one run merged; at least
// one axis.
StridedView merged(const StridedView& view) {
  StridedView result{.offset = view.offset};
  for (std::size_t i = 0; i < view.dims.size(); ++i) {
    if (view.dims[i] == 1) continue;
    if (!result.dims.empty() && result.strides.back() == view.strides[i] * view.dims[i]) {
      result.dims.back() *= view.dims[i];
      result.strides.back() = view.strides[i];
    } else {
      result.dims.push_back(view.dims[i]);
      result.strides.push_back(view.strides[i]);
    }
  }
  if (result.dims.empty()) {
    result.dims.push_back(1);
    result.strides.push_back(1);
  }
  return result;
}

template <class T>
void copy_view(ThreadPool& pool, const T* from, const StridedView& given, T* to) {
  const StridedView view = merged(given);
  const std::int64_t inner = view.dims.back();
  const std::int64_t step = view.strides.back();
  const std::int64_t total = element_count(view.dims);
  if (total == 0) return;
  const std::int64_t block = std::max<std::int64_t>(1, 16384 / inner);
  pool.parallel_for(total / inner, block, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t rest = row;
      const T* source = from + view.offset;
      for (std::size_t axis = view.dims.size() - 1; axis-- > 0; rest /= view.dims[axis])
        source += rest % view.dims[axis] * view.strides[axis];
      T* target = to + row * inner;
      if (step == 1)
        std::copy(source, source + inner, target);
      else
        for (std::int64_t i = 0; i < inner; ++i) target[i] = source[i * step];
    }
  });
}

}  // namespace

void put_view(KernelContext& context, std::size_t index, const Tensor& from,
              const StridedView& view, const Dims& dims) {
  if (from.dtype() == DType::string) {
    std::vector<std::string> strings(static_cast<std::size_t>(element_count(view.dims)));
    copy_view(context.pool(), from.strings().data(), view, strings.data());
    return context.forward_output(index, Tensor::of_strings(dims, std::move(strings)));
  }
  write_view(context.pool(), from, view, context.output(index, from.dtype(), dims));
}

void write_view(ThreadPool& pool, const Tensor& from, const StridedView& view, Tensor& to) {
  std::byte* target = to.mutable_bytes().data();
  const std::byte* source = from.aligned_bytes();
  dispatch_storage(from.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    copy_view(pool, reinterpret_cast<const T*>(source), view, reinterpret_cast<T*>(target));
  });
}

ElementSink::ElementSink(KernelContext& context, std::size_t index, DType type, Dims dims)
    : context_(context), index_(index), dims_(std::move(dims)) {
  if (type == DType::string) {
    strings_.resize(static_cast<std::size_t>(element_count(dims_)));
    return;
  }
  width_ = static_cast<std::size_t>(bits(type)) / 8;
  require(width_ > 0, "element type {} is not supported here", name(type));
  target_ = context.output(index, type, dims_).mutable_bytes().data();
}

void ElementSink::put(std::int64_t at, const Tensor& from, std::int64_t first, std::int64_t count) {
  if (width_ == 0) {
    const auto source = from.strings().begin() + first;
    std::copy(source, source + count, strings_.begin() + at);
  } else if (count > 0) {
    std::memcpy(target_ + static_cast<std::size_t>(at) * width_,
                from.bytes().data() + static_cast<std::size_t>(first) * width_,
                static_cast<std::size_t>(count) * width_);
  }
}

void ElementSink::clear() {
  std::ranges::fill(strings_, std::string());
  if (width_ > 0) std::memset(target_, 0, static_cast<std::size_t>(element_count(dims_)) * width_);
}

void ElementSink::finish() {
  if (width_ == 0) context_.forward_output(index_, Tensor::of_strings(dims_, std::move(strings_)));
}

}  // namespace onnxpress
