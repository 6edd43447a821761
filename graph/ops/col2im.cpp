// Col2Im: blocks of an image, one a column, added up where they lie (the adjoint of im2col).
#include <algorithm>

#include "graph/ops/broadcasting.h"
#include "graph/ops/dispatch.h"
#include "graph/ops/movement.h"
#include "graph/ops/registry.h"
#include "graph/ops/window.h"

namespace onnxpress {
namespace {

struct Col2ImCall {
  Window window;
  Dims image, blocks;  // spatial sizes of the image, and windows along each axis
  Dims dims;           // of the output
  std::int64_t taps;

  Col2ImCall(const Node& node, const Dims& columns, Dims image_shape, Dims block_shape)
      : image(std::move(image_shape)) {
    require(columns.size() == 3, "expected columns [batch,channels,blocks], found {}",
            to_string(columns));
    require(!block_shape.empty() && block_shape.size() == image.size(),
            "expected an image and a block of the same rank of at least 1, found {} and {}",
            to_string(image), to_string(block_shape));
    window = Window::from(node, std::move(block_shape));
    taps = element_count(window.kernel);
    for (std::size_t axis = 0; axis < image.size(); ++axis) {
      require(image[axis] > 0, "expected image sizes above 0, found {}", to_string(image));
      blocks.push_back(window.output_size(axis, image[axis]));
    }
    require(columns[1] % taps == 0, "expected channels divisible by {}, found {}", taps,
            columns[1]);
    require(columns[2] == element_count(blocks), "expected {} blocks, found {}",
            element_count(blocks), columns[2]);
    dims = {columns[0], columns[1] / taps};
    dims.insert(dims.end(), image.begin(), image.end());
  }
};

// Counts `at` on through `dims`, last axis first.
void advance(std::vector<std::int64_t>& at, const Dims& dims) {
  for (std::size_t axis = at.size(); axis-- > 0;) {
    if (++at[axis] < dims[axis]) return;
    at[axis] = 0;
  }
}

// Adds the blocks of one plane, columns [taps, blocks].
template <class T>
void add_blocks(const Col2ImCall& call, const T* columns, T* plane) {
  const Window& window = call.window;
  const std::size_t last = call.image.size() - 1;
  const auto strides = row_strides(call.image);
  const std::int64_t runs = element_count(call.blocks) / call.blocks[last];
  std::vector<std::int64_t> tap(call.image.size(), 0);
  for (std::int64_t k = 0; k < call.taps; ++k, advance(tap, window.kernel)) {
    const auto cell = [&](std::size_t axis, std::int64_t block) {
      return block * window.strides[axis] - window.pads[axis] + tap[axis] * window.dilations[axis];
    };
    std::vector<std::int64_t> block(call.image.size(), 0);
    Dims outer = call.blocks;
    outer[last] = 1;
    for (std::int64_t run = 0; run < runs; ++run, advance(block, outer)) {
      std::int64_t row = 0;
      bool inside = true;
      for (std::size_t axis = 0; axis < last; ++axis) {
        const std::int64_t at = cell(axis, block[axis]);
        inside = inside && at >= 0 && at < call.image[axis];
        row += at * strides[axis];
      }
      for (std::int64_t i = 0; i < call.blocks[last]; ++i, ++columns) {
        const std::int64_t at = cell(last, i);
        if (inside && at >= 0 && at < call.image[last]) plane[row + at] += *columns;
      }
    }
  }
}

Kernel prepare_col2im(const PrepareContext& prepare) {
  return [&node = prepare.node()](KernelContext& context) {
    run_as(context, arithmetic_type, [&](KernelContext& inner) {
      const Tensor& x = inner.required_input(0);
      const Col2ImCall call(node, x.dims(), context.required_input(1).to_ints(),
                            context.required_input(2).to_ints());
      Tensor& y = inner.output(0, x.dtype(), call.dims);
      const std::int64_t planes = call.dims[0] * call.dims[1];
      const std::int64_t plane = element_count(call.image);
      dispatch_numbers(x.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        const T* in = x.data<T>().data();
        T* out = y.mutable_data<T>().data();
        inner.pool().parallel_for(planes, 1, [&](std::int64_t i, std::int64_t) {
          std::fill_n(out + i * plane, plane, T(0));
          add_blocks(call, in + i * call.taps * x.dim(2), out + i * plane);
        });
      });
    });
  };
}

void infer_col2im(InferContext& context) {
  const Shape* x = context.input_shape(0);
  const auto image = context.input_symbolic(1);
  const auto block = context.input_ints(2);
  const auto dims = context.input_dims(0);
  const auto known_image = context.input_ints(1);
  if (dims && known_image && block) {
    const Col2ImCall call(context.node(), *dims, *known_image, *block);
    return context.set_output(0, context.input_dtype(0), to_shape(call.dims));
  }
  if (!image) return context.set_output(0, Type::tensor(context.input_dtype(0)));
  Shape shape{Dim(), Dim()};
  if (x != nullptr) {
    require(x->size() == 3, "expected columns [batch,channels,blocks], found {}", to_string(*x));
    shape[0] = (*x)[0];
    if (block && (*x)[1].is_known()) {
      const std::int64_t taps = element_count(*block);
      require(taps > 0 && (*x)[1].value() % taps == 0,
              "expected channels divisible by {}, found {}", taps, (*x)[1].value());
      shape[1] = (*x)[1].value() / taps;
    }
  }
  shape.insert(shape.end(), image->begin(), image->end());
  context.set_output(0, context.input_dtype(0), std::move(shape));
}

}  // namespace

OPERATORS(col2im) {
  registry.add(
      OpDef{.name = "Col2Im", .since = 18, .infer = infer_col2im, .prepare = prepare_col2im});
}

}  // namespace onnxpress
