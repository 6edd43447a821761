#include "graph/kernels/relayout.h"

#include "tests/graph/kernels/rows.h"

namespace onnxpress::rows {
namespace {

struct OneInput final : KernelContext {
  OneInput(Tensor value, int threads) : x(std::move(value)), workers(threads) {}
  std::size_t input_count() const override { return 1; }
  const Tensor* input(std::size_t) const override { return &x; }
  bool wants_output(std::size_t) const override { return true; }
  Tensor& output(std::size_t, DType type, const Dims& dims) override {
    return y = Tensor(type, dims);
  }
  void forward_output(std::size_t, Tensor tensor) override { y = std::move(tensor); }
  ThreadPool& pool() override { return workers; }
  std::vector<RuntimeValue> run_subgraph(std::string_view, std::span<const RuntimeValue>) override {
    fail("no subgraph");
  }
  Tensor x, y;
  ThreadPool workers;
};

Tensor relaid(const Tensor& x, const Dims& dims, Layout from, bool is_view, int threads) {
  OneInput call(x, threads);
  make_relayout(x.dtype(), dims, from, is_view)(call);
  return call.y;
}

TEST_CASE("images of every element width change their layout and back") {
  const std::vector<Dims> shapes{{1, 1, 1},       {2, 3, 5},        {1, 17, 33},    {3, 64, 65},
                                 {1, 3, 31, 29},  {2, 16, 4, 4},    {1, 129, 1, 1}, {2, 1, 7, 9},
                                 {1, 5, 3, 4, 7}, {2, 65, 2, 3, 3}, {1, 200, 70, 1}};
  for (const DType type : {DType::uint8, DType::int8, DType::boolean, DType::float16, DType::int16,
                           DType::float32, DType::int32, DType::float64, DType::int64})
    for (const Dims& dims : shapes)
      for (const int threads : {1, 3}) {
        CAPTURE(name(type));
        CAPTURE(to_string(dims));
        Tensor x(type, dims);
        Random random(4);
        for (std::byte& value : x.mutable_bytes()) value = static_cast<std::byte>(random.next());
        const Tensor last = relaid(x, dims, Layout::row_major, false, threads);
        CHECK(last.equals(with_channels_moved(x, Layout::channels_last)));
        CHECK(relaid(last, dims, Layout::channels_last, false, threads).equals(x));
      }
}

TEST_CASE("images that lie alike in both layouts are forwarded") {
  for (const Dims& dims : {Dims{2, 9, 1, 1}, Dims{2, 1, 3, 4}, Dims{1, 1, 5}}) {
    const Tensor x = random_tensor(DType::float32, dims, 3);
    const Tensor last = relaid(x, dims, Layout::row_major, true, 1);
    CHECK(last.equals(with_channels_moved(x, Layout::channels_last)));
    CHECK(last.shares_storage_with(x));
    const Tensor back = relaid(last, dims, Layout::channels_last, true, 1);
    CHECK(back.equals(x));
    CHECK(back.shares_storage_with(x));
  }
}

TEST_CASE("layouts of packed elements do not change") {
  CHECK_THROWS_AS(make_relayout(DType::int4, {1, 2, 3}, Layout::row_major, false), Error);
}

}  // namespace
}  // namespace onnxpress::rows
