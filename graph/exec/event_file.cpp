#include "graph/exec/event_file.h"

#include <fcntl.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include "graph/base/descriptor.h"
#include "graph/base/error.h"
#include "graph/onnx/encode_wire.h"
#include "graph/onnx/wire.h"

namespace onnxpress {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78U : 0);
    table[i] = value;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> crc_table = make_crc_table();

template <class T>
void append_little_endian(std::string& bytes, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}

std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(bytes)));
  return std::rotr(crc, 15) + 0xa282ead8U;
}

std::string record(std::string_view contents) {
  std::string bytes;
  append_little_endian(bytes, static_cast<std::uint64_t>(contents.size()));
  append_little_endian(bytes, masked_crc(bytes));
  bytes += contents;
  append_little_endian(bytes, masked_crc(contents));
  return bytes;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string bytes_of(const wire::Message& message) {
  std::string bytes;
  message.for_each_piece([&](std::span<const std::byte> piece) {
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  });
  return bytes;
}

// An Event with its wall time.
wire::Message event() {
  std::string time;
  wire::append_varint(time, wire::fixed64(1));
  append_little_endian(time, std::bit_cast<std::uint64_t>(seconds_now()));
  wire::Message message;
  message.add_fields(time);
  return message;
}

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes) {
  std::uint32_t crc = 0xffffffffU;
  for (const std::byte byte : bytes) crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<std::uint32_t>(byte)) & 0xff];
  return ~crc;
}

struct EventFile::State {
  std::filesystem::path path;
  Descriptor descriptor;

  void write(const wire::Message& message) const {
    const std::string bytes = record(bytes_of(message));
    if (!write_fully(descriptor.get(), std::as_bytes(std::span(bytes))))
      fail("cannot write '{}': {}", path.string(), std::strerror(errno));
  }
};

EventFile::EventFile(const std::filesystem::path& folder) : state_(std::make_unique<State>()) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!std::filesystem::is_directory(folder))
    fail("cannot make the folder '{}' for TensorBoard: {}", folder.string(), error ? error.message() : "it is a file");
  const auto seconds = static_cast<std::int64_t>(seconds_now());
  for (int number = 0; !state_->descriptor; ++number) {
    state_->path = folder / fmt::format("events.out.tfevents.{:010}.{}.onnxpress", seconds, number);
    state_->descriptor = Descriptor(::open(state_->path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!state_->descriptor && errno != EEXIST)
      fail("cannot make '{}': {}", state_->path.string(), std::strerror(errno));
  }
  wire::Message first = event();
  first.add_string(3, "brain.Event:2");
  state_->write(first);
}

EventFile::~EventFile() = default;

void EventFile::add(std::int64_t step, std::span<const std::pair<std::string, double>> scalars) {
  wire::Message summary;
  for (const auto& [tag, value] : scalars) {
    wire::Message scalar;
    scalar.add_string(1, tag);
    scalar.add_float(2, static_cast<float>(value));
    summary.add_message(1, scalar);
  }
  wire::Message message = event();
  message.add_int(2, step);
  message.add_message(5, summary);
  state_->write(message);
}

void EventFile::restart(std::int64_t step) {
  constexpr std::int64_t start = 1;
  wire::Message session;
  session.add_int(1, start);
  wire::Message message = event();
  message.add_int(2, step);
  message.add_message(7, session);
  state_->write(message);
}

const std::filesystem::path& EventFile::path() const { return state_->path; }

}  // namespace onnxpress
