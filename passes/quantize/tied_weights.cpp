#include "passes/quantize/tied_weights.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "graph/onnx/mapped_pages.h"
#include "graph/ops/transpose.h"
#include "graph/rewrite/patch.h"

namespace onnxpress {
namespace {

constexpr std::size_t least_bytes = 4096;  // that are worth a node
constexpr std::int64_t samples = 61;       // elements compared first
constexpr std::int64_t tile = 64;          // rows and columns compared at once

class Matrix {
 public:
  explicit Matrix(const Tensor& tensor)
      : bytes_(tensor.bytes().data()),
        width_(static_cast<std::size_t>(bits(tensor.dtype()) / 8)),
        columns_(tensor.dim(1)) {}

  const std::byte* at(std::int64_t row, std::int64_t column) const {
    return bytes_ + static_cast<std::size_t>(row * columns_ + column) * width_;
  }
  std::size_t width() const { return width_; }

 private:
  const std::byte* bytes_;
  std::size_t width_;
  std::int64_t columns_;
};

bool is_transpose(const Tensor& tensor, const Tensor& other) {
  const Matrix a(tensor), b(other);
  const std::int64_t rows = tensor.dim(0), columns = tensor.dim(1);
  const auto same = [&](std::int64_t row, std::int64_t column) {
    return std::memcmp(a.at(row, column), b.at(column, row), a.width()) == 0;
  };
  for (std::int64_t i = 0; i < samples; ++i)
    if (!same(i * 7919 % rows, i * 104729 % columns)) return false;
  for (std::int64_t row = 0; row < rows; row += tile)
    for (std::int64_t column = 0; column < columns; column += tile)
      for (std::int64_t r = row; r < std::min(row + tile, rows); ++r)
        for (std::int64_t c = column; c < std::min(column + tile, columns); ++c)
          if (!same(r, c)) return false;
  release_pages(tensor.bytes());
  release_pages(other.bytes());
  return true;
}

void replace_by_transpose(Value* weight, Value* source) {
  Patch patch(weight->graph());
  OpCall call = make_transpose({1, 0});
  patch.replace(weight, patch.node({.op_type = std::move(call.op_type),
                                    .name = weight->name() + "_Transpose",
                                    .inputs = {source},
                                    .attributes = std::move(call.attributes)}));
  patch.apply();
}

}  // namespace

std::size_t tie_transposed_weights(const std::vector<Weight>& weights) {
  std::map<Dims, std::vector<Value*>> known;
  std::size_t tied = 0;
  for (const Weight& weight : weights) {
    const Tensor& tensor = *weight.value->constant();
    if (tensor.rank() != 2 || tensor.byte_size() < least_bytes) continue;
    const auto fits = [&](const Value* other) {
      return &other->graph() == &weight.value->graph() && other->constant()->dtype() == tensor.dtype() &&
             is_transpose(tensor, *other->constant());
    };
    std::vector<Value*>& candidates = known[{tensor.dim(1), tensor.dim(0)}];
    const auto twin = std::ranges::find_if(candidates, fits);
    if (twin == candidates.end()) {
      known[tensor.dims()].push_back(weight.value);
      continue;
    }
    replace_by_transpose(weight.value, *twin);
    ++tied;
  }
  return tied;
}

}  // namespace onnxpress
