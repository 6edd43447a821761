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

// Why the file is not used.
std::string reason_of(const std::filesystem::path& path, std::string_view key = "key") {
  const FoundSamples found = SampleStore::open(path, key);
  CHECK_FALSE(found.store);
  return found.reason;
}

TEST_CASE("rows are gathered by sample from memory and from a file") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "kept";
  check(SampleStore::record({"a", "b"}, 7, batches(), "key", "", 1000));
  const FoundSamples none = SampleStore::open(path, "key");
  CHECK_FALSE(none.store);
  CHECK(none.reason.empty());
  check(SampleStore::record({"a", "b"}, 7, batches(), "key", path, 0));
  const FoundSamples kept = SampleStore::open(path, "key");
  REQUIRE(kept.store);
  check(*kept.store);
  CHECK(reason_of(path, "another key") == "it was kept for another teacher, other values, data or preprocessing");
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

TEST_CASE("a file that is damaged, cut short or of an older form is not used, and says why") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "kept";
  SampleStore::record({"a", "b"}, 7, batches(), "key", path, 0);
  const auto size = std::filesystem::file_size(path);
  std::string whole(size, '\0');
  std::ifstream(path, std::ios::binary).read(whole.data(), static_cast<std::streamsize>(size));
  const auto write = [&](const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; };
  for (std::size_t at = 20; at < size; ++at) {  // behind the first line
    CAPTURE(at);
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    write(damaged);
    CHECK(reason_of(path) == "it is damaged or was cut short");
  }
  for (const std::size_t left : {size - 1, std::size_t{100}, std::size_t{25}, std::size_t{20}}) {
    CAPTURE(left);
    write(whole.substr(0, left));
    CHECK(reason_of(path) == "it is damaged or was cut short");
  }
  for (const std::size_t left : {std::size_t{19}, std::size_t{3}, std::size_t{0}}) {
    CAPTURE(left);
    write(whole.substr(0, left));
    CHECK(reason_of(path) == "it was cut short");
  }
  write("onnxpress.samples/1\n{\"key\":\"key\",\"samples\":-1,\"columns\":[]}\n");
  CHECK(reason_of(path) == "it is of an older form");
}

TEST_CASE("a file that is something else is refused, not written over") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "kept";
  std::ofstream(path) << "something else";
  CHECK_THROWS_WITH_AS(SampleStore::open(path, "key"), doctest::Contains("found something else"), Error);
}

TEST_CASE("a checksum spans more than one block") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "kept";
  int left = 3;
  const auto large = [&]() -> std::vector<Tensor> {
    return left-- > 0 ? std::vector{Tensor(DType::float32, {1, 200'000})} : std::vector<Tensor>();
  };
  CHECK(SampleStore::record({"a"}, 3, large, "key", path, 0).samples() == 3);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(2'000'000);
  file.put('x');
  file.close();
  CHECK(reason_of(path) == "it is damaged or was cut short");
}

}  // namespace
}  // namespace onnxpress
