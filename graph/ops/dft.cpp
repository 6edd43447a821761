// DFT (17, 20) and STFT (17).
#include <algorithm>
#include <array>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/fft.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

using Complex = std::complex<double>;

// An integer given as a tensor of one element.
std::int64_t one_integer(const Tensor& tensor, std::string_view what) {
  require(tensor.size() == 1, "expected one element in {}, found {}", what,
          to_string(tensor.dims()));
  return tensor.to_ints().front();
}

// The last axis: 1 for real numbers, 2 for (real, imaginary).
void check_components(const Dim& dim) {
  require(!dim.is_known() || dim.value() == 1 || dim.value() == 2,
          "expected a last axis of 1 (real) or 2 (complex), found {}", dim.to_string());
}

struct DftAttrs {
  bool inverse = false, onesided = false;
  std::optional<std::int64_t> axis;  // attribute (17) or default; nothing: an input (20)

  static DftAttrs from(const Node& node) {
    DftAttrs attrs{.inverse = get_bool(node, "inverse", false),
                   .onesided = get_bool(node, "onesided", false)};
    if (node.opset() < 20)
      attrs.axis = get_int(node, "axis", 1);
    else if (node.input(2) == nullptr)
      attrs.axis = -2;
    return attrs;
  }

  // The inverse of one side: real numbers from a spectrum whose other half is conjugate.
  bool to_real() const { return inverse && onesided; }
  std::size_t check_axis(std::int64_t given, std::size_t rank) const {
    const auto found = static_cast<std::size_t>(normalize_axis(given, rank));
    require(found + 1 < rank, "axis {} of {} holds the components of the numbers", given, rank);
    return found;
  }
  // What is transformed where `size` numbers are along the axis.
  std::int64_t default_length(std::int64_t size) const { return to_real() ? 2 * (size - 1) : size; }
  std::int64_t output_size(std::int64_t length) const {
    return onesided && !inverse ? length / 2 + 1 : length;
  }
};

// Transforms `length` numbers (read(i), already padded) of which the first `kept` are written.
template <class T>
void put_components(const std::vector<Complex>& values, std::int64_t kept, std::int64_t step,
                    std::int64_t components, double scale, T* out) {
  for (std::int64_t k = 0; k < kept; ++k) {
    const Complex value = values[static_cast<std::size_t>(k)] * scale;
    out[k * step] = static_cast<T>(value.real());
    if (components == 2) out[k * step + 1] = static_cast<T>(value.imag());
  }
}

template <class T>
void transform(ThreadPool& pool, const DftAttrs& attrs, const Tensor& x, std::size_t axis,
               std::int64_t length, Tensor& y) {
  const std::int64_t size = x.dim(axis), kept = y.dim(axis);
  const std::int64_t in_parts = x.dims().back(), out_parts = y.dims().back();
  const std::int64_t between =
      element_count(std::span(x.dims()).subspan(axis + 1)) / std::max<std::int64_t>(in_parts, 1);
  const std::int64_t outer = element_count(std::span(x.dims()).first(axis));
  const FourierTransform fourier(length, attrs.inverse);
  const T* const in = x.data<T>().data();
  T* const out = y.mutable_data<T>().data();
  const std::int64_t given =
      attrs.to_real() ? std::min(size, length / 2 + 1) : std::min(size, length);
  const double scale = attrs.inverse ? 1 / static_cast<double>(length) : 1;
  pool.parallel_for(outer * between, 1, [&](std::int64_t line, std::int64_t) {
    const std::int64_t o = line / between, i = line % between;
    const T* const from = in + (o * size * between + i) * in_parts;
    std::vector<Complex> values(static_cast<std::size_t>(length));
    for (std::int64_t k = 0; k < given; ++k) {
      const T* const number = from + k * between * in_parts;
      values[static_cast<std::size_t>(k)] = {static_cast<double>(number[0]),
                                             in_parts == 2 ? static_cast<double>(number[1]) : 0.0};
    }
    if (attrs.to_real()) {  // imaginary parts of the ends have no counterpart and are left out
      values[0].imag(0);
      for (std::int64_t k = 1; k < given; ++k) {
        const auto mirror = static_cast<std::size_t>(length - k);
        if (static_cast<std::int64_t>(mirror) == k)
          values[mirror].imag(0);
        else
          values[mirror] = std::conj(values[static_cast<std::size_t>(k)]);
      }
    }
    fourier.run(values.data());
    put_components(values, kept, between * out_parts, out_parts, scale,
                   out + (o * kept * between + i) * out_parts);
  });
}

Kernel prepare_dft(const PrepareContext& prepare) {
  return [attrs = DftAttrs::from(prepare.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      require(x.rank() >= 2, "expected an input of at least 2 axes, found {}", to_string(x.dims()));
      const std::int64_t components = x.dims().back();
      check_components(Dim(components));
      const std::size_t axis = attrs.check_axis(
          attrs.axis ? *attrs.axis : one_integer(inner.required_input(2), "axis"), x.rank());
      const Tensor* given = inner.input(1);
      const std::int64_t length =
          given != nullptr ? one_integer(*given, "dft_length") : attrs.default_length(x.dim(axis));
      require(length >= 1, "expected a transform of at least 1 point, found {}", length);
      Dims dims = x.dims();
      dims[axis] = attrs.output_size(length);
      dims.back() = attrs.to_real() ? 1 : 2;
      Tensor& y = inner.output(0, x.dtype(), dims);
      dispatch_floats(x.dtype(), [&](auto tag) {
        transform<typename decltype(tag)::type>(inner.pool(), attrs, x, axis, length, y);
      });
    });
  };
}

void infer_dft(InferContext& context) {
  const DftAttrs attrs = DftAttrs::from(context.node());
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (x != nullptr) {
    require(x->size() >= 2, "expected an input of at least 2 axes, found {}", to_string(*x));
    check_components(x->back());
    shape = *x;
    shape->back() = Dim(attrs.to_real() ? 1 : 2);
    std::optional<std::int64_t> given = attrs.axis;
    if (!given)
      if (const auto values = context.input_ints(2); values && values->size() == 1)
        given = values->front();
    if (given) {
      Dim& dim = (*shape)[attrs.check_axis(*given, x->size())];
      std::optional<std::int64_t> length;
      if (context.has_input(1)) {
        if (const auto values = context.input_ints(1); values && values->size() == 1)
          length = values->front();
        dim = Dim();
      } else if (dim.is_known()) {
        length = attrs.default_length(dim.value());
      } else if (attrs.onesided) {
        dim = Dim();
      }
      if (length) {
        require(*length >= 1, "expected a transform of at least 1 point, found {}", *length);
        dim = Dim(attrs.output_size(*length));
      }
    } else {  // any axis but the last may be the transformed one
      std::fill(shape->begin(), shape->end() - 1, Dim());
    }
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

// Frames of a signal [batch, length, components]; inputs (signal, frame_step, window,
// frame_length).
struct Frames {
  std::int64_t step = 0, length = 0, count = 0;

  static Frames of(std::int64_t samples, std::int64_t step, std::optional<std::int64_t> window,
                   std::optional<std::int64_t> length) {
    require(step >= 1, "expected a frame step of at least 1, found {}", step);
    const std::int64_t size = length ? *length : window ? *window : samples;
    require(1 <= size && size <= samples, "expected frames of 1 to {} samples, found {}", samples,
            size);
    require(!window || *window == size, "expected a window of {} elements, found {}", size,
            window.value_or(0));
    return {.step = step, .length = size, .count = 1 + (samples - size) / step};
  }
};

Kernel prepare_stft(const PrepareContext& prepare) {
  return [onesided = get_bool(prepare.node(), "onesided", true)](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      require(x.rank() == 2 || x.rank() == 3,
              "expected a signal [batch,length] or [batch,length,components], found {}",
              to_string(x.dims()));
      const std::int64_t components = x.rank() == 3 ? x.dim(2) : 1;
      check_components(Dim(components));
      const Tensor* window = inner.input(2);
      const Tensor* length = inner.input(3);
      require(window == nullptr || window->rank() == 1, "expected a window of 1 axis, found {}",
              window == nullptr ? "" : to_string(window->dims()));
      const Frames frames = Frames::of(
          x.dim(1), one_integer(inner.required_input(1), "frame_step"),
          window != nullptr ? std::optional(window->size()) : std::nullopt,
          length != nullptr ? std::optional(one_integer(*length, "frame_length")) : std::nullopt);
      const std::int64_t kept = onesided ? frames.length / 2 + 1 : frames.length;
      const FourierTransform fourier(frames.length, false);
      Tensor& y = inner.output(0, x.dtype(), {x.dim(0), frames.count, kept, 2});
      dispatch_floats(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* const in = x.data<T>().data();
        const T* const weights = window != nullptr ? window->data<T>().data() : nullptr;
        T* const out = y.mutable_data<T>().data();
        inner.pool().parallel_for(
            x.dim(0) * frames.count, 1, [&](std::int64_t frame, std::int64_t) {
              const T* const from =
                  in + (frame / frames.count * x.dim(1) + frame % frames.count * frames.step) *
                           components;
              std::vector<Complex> values(static_cast<std::size_t>(frames.length));
              for (std::int64_t i = 0; i < frames.length; ++i) {
                const double weight = weights != nullptr ? static_cast<double>(weights[i]) : 1;
                const T* const number = from + i * components;
                values[static_cast<std::size_t>(i)] = {number[0] * weight,
                                                       components == 2 ? number[1] * weight : 0.0};
              }
              fourier.run(values.data());
              put_components(values, kept, 2, 2, 1, out + frame * kept * 2);
            });
      });
    });
  };
}

void infer_stft(InferContext& context) {
  const bool onesided = get_bool(context.node(), "onesided", true);
  Shape shape{Dim(), Dim(), Dim(), Dim(2)};
  const auto integer = [&](std::size_t index) -> std::optional<std::int64_t> {
    const auto values = context.input_ints(index);
    return values && values->size() == 1 ? std::optional(values->front()) : std::nullopt;
  };
  if (const Shape* x = context.input_shape(0)) {
    require(x->size() == 2 || x->size() == 3,
            "expected a signal [batch,length] or [batch,length,components], found {}",
            to_string(*x));
    if (x->size() == 3) check_components((*x)[2]);
    shape[0] = (*x)[0];
    const auto step = integer(1);
    const auto length = integer(3);
    std::optional<std::int64_t> window;
    if (const Shape* given = context.input_shape(2); given != nullptr && given->size() == 1)
      if (given->front().is_known()) window = given->front().value();
    const bool complete = (!context.has_input(2) || window) && (!context.has_input(3) || length);
    if ((*x)[1].is_known() && step && complete) {
      const Frames frames = Frames::of((*x)[1].value(), *step, window, length);
      shape[1] = Dim(frames.count);
      shape[2] = Dim(onesided ? frames.length / 2 + 1 : frames.length);
    } else if (window || length) {
      const std::int64_t size = length ? *length : *window;
      require(size >= 1, "expected frames of at least 1 sample, found {}", size);
      shape[2] = Dim(onesided ? size / 2 + 1 : size);
    }
  }
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

}  // namespace

OPERATORS(dft) {
  registry.add(OpDef{.name = "DFT", .since = 17, .infer = infer_dft, .prepare = prepare_dft});
  registry.add(OpDef{.name = "STFT", .since = 17, .infer = infer_stft, .prepare = prepare_stft});
}

}  // namespace onnxpress
