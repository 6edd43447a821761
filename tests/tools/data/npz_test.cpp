#include "tools/data/npz.h"

#include <doctest/doctest.h>

#include <cstring>

#include "graph/base/error.h"
#include "tests/tools/data/scratch.h"
#include "tools/data/npy.h"

namespace onnxpress {

namespace {

Tensor read_whole(ArrayReader& reader) {
  Tensor tensor(reader.info().dtype, reader.info().dims);
  reader.read(tensor.mutable_bytes());
  return tensor;
}

// A .npy file of version 1.0 with the given header dictionary.
std::string npy(std::string dict, std::string_view data) {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  dict += '\n';
  bytes += static_cast<char>(dict.size() & 0xff);
  bytes += static_cast<char>(dict.size() >> 8);
  return bytes + dict + std::string(data);
}

std::string error_of(const std::filesystem::path& path) {
  try {
    open_npy(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("an archive that was written is read back, every NumPy type") {
  const Scratch scratch;
  std::vector<std::pair<std::string, Tensor>> arrays;
  for (const DType type :
       {DType::float16, DType::float32, DType::float64, DType::int8, DType::int16, DType::int32,
        DType::int64, DType::uint8, DType::uint16, DType::uint32, DType::uint64, DType::boolean}) {
    Tensor tensor(type, {2, 3});
    const auto bytes = tensor.mutable_bytes();
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 2);
    arrays.emplace_back("a/" + std::string(name(type)), tensor);
  }
  arrays.emplace_back("scalar", Tensor::scalar(1.5f));
  arrays.emplace_back("empty", Tensor(DType::float32, {0, 7}));
  const auto path = scratch.write_npz("all.npz", arrays);
  const auto readers = open_npz(path);
  REQUIRE(readers.size() == arrays.size());
  for (std::size_t i = 0; i < readers.size(); ++i) {
    CAPTURE(arrays[i].first);
    CHECK(readers[i]->info().name == arrays[i].first);
    CHECK(read_whole(*readers[i]).equals(arrays[i].second));
    readers[i]->rewind();
    CHECK(read_whole(*readers[i]).equals(arrays[i].second));
  }
}

TEST_CASE("equal arrays give equal archives") {
  const Scratch scratch;
  const Tensor tensor = Tensor::of<float>({2}, std::vector<float>{1, 2});
  const auto one = scratch.write_npz("one.npz", {{"x", tensor}});
  const auto two = scratch.write_npz("two.npz", {{"x", tensor}});
  CHECK(contents(one) == contents(two));
}

TEST_CASE("compressed members are streamed") {
  const auto readers = open_npz(ONNXPRESS_TESTDATA "/digits_test.npz");
  REQUIRE(readers.size() == 2);
  CHECK(readers[0]->info().name == "x");
  CHECK(readers[0]->info().dims == Dims{500, 1, 8, 8});
  CHECK(readers[1]->info().dtype == DType::int64);
  const Tensor once = read_whole(*readers[1]);
  readers[1]->rewind();
  CHECK(read_whole(*readers[1]).equals(once));
  std::byte more;
  CHECK_THROWS_AS(readers[1]->read({&more, 1}), Error);
}

TEST_CASE("a cut archive is an error at every length") {
  const Scratch scratch;
  const std::string whole = contents(ONNXPRESS_TESTDATA "/digits_test.npz");
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{3}, whole.size() / 2, whole.size() - 1}) {
    CAPTURE(length);
    CHECK_THROWS_AS(open_npz(scratch.write("cut.npz", whole.substr(0, length))), Error);
  }
}

TEST_CASE("a flipped byte of compressed data is found by its checksum") {
  const Scratch scratch;
  std::string bytes = contents(ONNXPRESS_TESTDATA "/digits_test.npz");
  bytes[5000] = static_cast<char>(bytes[5000] ^ 0x55);
  const auto path = scratch.write("bad.npz", bytes);
  CHECK_THROWS_AS(read_whole(*open_npz(path).at(0)), Error);
}

TEST_CASE(".npy headers of versions 1, 2 and 3") {
  const Scratch scratch;
  const std::string dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  const std::string data("\x00\x00\x80\x3f\x00\x00\x00\x40", 8);
  CHECK(read_whole(*open_npy(scratch.write("one.npy", npy(dict, data)))).data<float>()[1] == 2.0f);
  for (const char version : {'\2', '\3'}) {
    std::string bytes = "\x93NUMPY";
    bytes += version;
    bytes += '\0';
    const std::uint32_t length = static_cast<std::uint32_t>(dict.size());
    bytes.append(reinterpret_cast<const char*>(&length), 4);
    CHECK(read_whole(*open_npy(scratch.write("v.npy", bytes + dict + data))).data<float>()[0] ==
          1.0f);
  }
}

TEST_CASE(".npy files that are not read are exact errors") {
  const Scratch scratch;
  const auto try_header = [&](const std::string& dict, std::string_view data = "") {
    return error_of(scratch.write("x.npy", npy(dict, data)));
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(has(try_header("{'descr': '>f4', 'fortran_order': False, 'shape': (0,), }"),
            "expected little-endian data, found big-endian '>f4'"));
  CHECK(has(try_header("{'descr': '<f4', 'fortran_order': True, 'shape': (0, 2), }"),
            "expected row-major data, found column-major"));
  CHECK(has(try_header("{'descr': '|O', 'fortran_order': False, 'shape': (0,), }"),
            "expected a numeric element type, found '|O'"));
  CHECK(has(try_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0,), }"),
            "structured"));
  CHECK(has(try_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "1234"),
            "expected 12 bytes of data for float32[3], found 4"));
  CHECK(has(
      try_header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999), }"),
      "overflow"));
  CHECK(has(try_header("{'descr': '<f4', 'shape': (3,), }"), "lacks"));
  CHECK(has(try_header("{'descr': '<f4"), "malformed"));
  CHECK(has(error_of(scratch.write("x.npy", "\x93NUMPY")), "ends inside"));
}

}  // namespace onnxpress
