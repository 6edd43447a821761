// Rows kept by sample, in memory and in files.
#include "passes/common/sample_store.h"

#include <doctest/doctest.h>

#include <fstream>

#include "tests/graph/base/temporary_folder.h"

namespace onnxpress {
namespace {

// Batches of 3, 3 and 1 rows of two columns.
std::function<std::vector<Tensor>()> batches() {
  return [done = std::int64_t{0}]() mutable -> std::vector<Tensor> {
    const std::int64_t rows = std::min<std::int64_t>(3, 7 - done);
    if (rows <= 0) return {};
    Tensor a(DType::float32, {rows, 2}), b(DType::int64, {rows});
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto at = static_cast<std::size_t>(i);
      a.mutable_data<float>()[2 * at] = static_cast<float>(done + i);
      a.mutable_data<float>()[2 * at + 1] = -static_cast<float>(done + i);
      b.mutable_data<std::int64_t>()[at] = 10 * (done + i);
    }
    done += rows;
    return {a, b};
  };
}

void check(const SampleStore& store) {
  REQUIRE(store.samples() == 7);
  CHECK(store.columns()[0].row == Dims{2});
  CHECK(store.columns()[1].row.empty());
  const std::int64_t numbers[] = {6, 0, 3, 3};
  CHECK(store.gather(0, numbers).to_floats() == std::vector<float>{6, -6, 0, 0, 3, -3, 3, -3});
  CHECK(store.gather(1, numbers).to_ints() == std::vector<std::int64_t>{60, 0, 30, 30});
  const std::int64_t beyond[] = {7};
  CHECK_THROWS_AS(store.gather(0, beyond), Error);
}

TEST_CASE("rows are gathered by sample from memory and from a file") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "kept";
  check(SampleStore::record({"a", "b"}, 7, batches(), "key", "", 1000));
  CHECK_FALSE(SampleStore::open(path, "key"));
  check(SampleStore::record({"a", "b"}, 7, batches(), "key", path, 0));
  const auto kept = SampleStore::open(path, "key");
  REQUIRE(kept);
  check(*kept);
  CHECK_FALSE(SampleStore::open(path, "another key"));
}

TEST_CASE("what cannot be kept is refused, and nothing is written") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "kept";
  CHECK_THROWS_AS(SampleStore::record({"a", "b"}, 6, batches(), "key", path, 0), Error);
  CHECK_THROWS_AS(SampleStore::record({"a", "b"}, 8, batches(), "key", path, 0), Error);
  CHECK_THROWS_AS(SampleStore::record({"a", "b"}, 7, batches(), "key", "", 7 * 16 - 1), Error);
  int calls = 0;
  const auto changing = [&]() -> std::vector<Tensor> { return {Tensor(DType::float32, {1, ++calls})}; };
  CHECK_THROWS_AS(SampleStore::record({"a"}, 2, changing, "key", path, 0), Error);
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("files that are no store, or cut short, are refused") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "kept";
  SampleStore::record({"a", "b"}, 7, batches(), "key", path, 0);
  const auto size = std::filesystem::file_size(path);
  for (const std::uintmax_t left : {size - 1, std::uintmax_t{100}, std::uintmax_t{25}, std::uintmax_t{3}}) {
    CAPTURE(left);
    std::filesystem::resize_file(path, left);
    CHECK_THROWS_AS(SampleStore::open(path, "key"), Error);
  }
  std::ofstream(path)
      << "onnxpress.samples/1\n{\"key\":\"key\",\"samples\":-1,\"columns\":[{\"name\":\"a\",\"type\":\"float32\","
         "\"dims\":[9223372036854775807,9]}]}\n";
  CHECK_THROWS_AS(SampleStore::open(path, "key"), Error);
  std::ofstream(path) << "something else";
  CHECK_THROWS_AS(SampleStore::open(path, "key"), Error);
}

}  // namespace
}  // namespace onnxpress
