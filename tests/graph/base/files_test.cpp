#include "graph/base/files.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>

#include "graph/base/error.h"
#include "tests/graph/base/temporary_folder.h"

using onnxpress::Error;
using onnxpress::MappedFile;
namespace fs = std::filesystem;

namespace {

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Pipe {
  Pipe() { REQUIRE(::pipe(ends) == 0); }
  ~Pipe() {
    for (const int end : ends) ::close(end);
  }
  void close_writer() {
    ::close(ends[1]);
    ends[1] = -1;
  }
  int ends[2];
};

}  // namespace

TEST_CASE("a mapped file shows its bytes and outlives its name") {
  const TemporaryFolder folder;
  folder.write("a", "hello");
  const auto mapped = MappedFile::open(folder / "a");
  fs::remove(folder / "a");
  CHECK(text_of(mapped->bytes()) == "hello");
  CHECK(mapped->path() == folder / "a");
}

TEST_CASE("an empty file maps to nothing") {
  const TemporaryFolder folder;
  folder.write("a", "");
  const auto mapped = MappedFile::open(folder / "a");
  CHECK(mapped->bytes().empty());
  mapped->release(0, 1);
}

TEST_CASE("what cannot be mapped is refused by name") {
  const TemporaryFolder folder;
  const auto message = [](const fs::path& path) {
    try {
      MappedFile::open(path);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string path = folder / "a";
  CHECK(message(path) == "cannot open " + path + ": No such file or directory");
  CHECK(message(folder / "") ==
        "cannot read " + std::string(folder / "") + ": expected a regular file, found a folder");
  CHECK(message("/dev/null") == "cannot read /dev/null: expected a regular file, found a device");
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(message(path) == "cannot read " + path + ": expected a regular file, found a FIFO");
}

TEST_CASE("released pages read the same") {
  const TemporaryFolder folder;
  std::string text(300000, 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 7 / 5);
  folder.write("a", text);
  const auto mapped = MappedFile::open(folder / "a");
  for (const std::size_t offset : {0u, 1u, 4096u, 299999u, 300000u, 400000u}) {
    for (const std::size_t length : {0u, 1u, 4096u, 100000u}) mapped->release(offset, length);
    mapped->release(offset, SIZE_MAX);
  }
  CHECK(text_of(mapped->bytes()) == text);
}

TEST_CASE("release gives back the memory of whole pages only, up to the end of the file") {
  const TemporaryFolder folder;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  folder.write("a", std::string(64 * page + 10, 'x'));
  const auto mapped = MappedFile::open(folder / "a");
  // Of the mapping alone: what the kernel counts for the whole process is not exact.
  const auto resident_pages = [&] {
    std::uint64_t entries[65];
    const auto first = reinterpret_cast<std::uintptr_t>(mapped->bytes().data()) / page;
    const int pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const auto offset = static_cast<off_t>(first * sizeof *entries);
    const ssize_t read = ::pread(pagemap, entries, sizeof entries, offset);
    ::close(pagemap);
    REQUIRE(read == static_cast<ssize_t>(sizeof entries));
    return std::ranges::count_if(entries, [](std::uint64_t entry) { return entry >> 63 != 0; });
  };
  const auto touch = [&] {
    int sum = 0;
    for (std::size_t i = 0; i < mapped->bytes().size(); i += page)
      sum += std::to_integer<int>(mapped->bytes()[i]);
    return sum;
  };
  CHECK(touch() == 65 * 'x');
  CHECK(resident_pages() == 65);
  mapped->release(0, mapped->bytes().size());
  CHECK(resident_pages() == 0);
}

TEST_CASE("read_all reads files and pipes whole") {
  const TemporaryFolder folder;
  folder.write("a", std::string(100000, 'a'));
  const int file = ::open((folder / "a").c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(file >= 0);
  CHECK(onnxpress::read_all(file, 100000).size() == 100000);
  CHECK(onnxpress::read_all(file, 100000).empty());
  ::close(file);

  Pipe pipe;
  std::string text(1 << 20, 'p');
  text.back() = 'q';
  std::thread writer([&] {
    onnxpress::write_all(pipe.ends[1], std::as_bytes(std::span(text)));
    pipe.close_writer();
  });
  const auto bytes = onnxpress::read_all(pipe.ends[0], SIZE_MAX);
  writer.join();
  CHECK(text_of(bytes) == text);
}

TEST_CASE("read_all refuses more than its limit, and what cannot be read") {
  Pipe pipe;
  onnxpress::write_all(pipe.ends[1], std::as_bytes(std::span("12345", 5)));
  pipe.close_writer();
  const std::string name = "descriptor " + std::to_string(pipe.ends[0]);
  CHECK_THROWS_WITH_AS(onnxpress::read_all(pipe.ends[0], 4),
                       (name + " holds more than 4 bytes").c_str(), Error);
  CHECK_THROWS_WITH_AS(onnxpress::read_all(-1, 4), "cannot read descriptor -1: Bad file descriptor",
                       Error);
}

TEST_CASE("write_all reports a full disk") {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  REQUIRE(full >= 0);
  const std::string expected =
      "cannot write descriptor " + std::to_string(full) + ": No space left on device";
  CHECK_THROWS_WITH_AS(onnxpress::write_all(full, std::as_bytes(std::span("x", 1))),
                       expected.c_str(), Error);
  CHECK_NOTHROW(onnxpress::write_all(full, {}));
  ::close(full);
}
