// Event files as TensorBoard reads them: scalars by tag and step.
//
// A file is a sequence of TFRecords (length, masked CRC of the length, bytes, masked CRC of the bytes; CRC-32C,
// RFC 3720 appendix B.4), each an Event message of TensorFlow's event.proto: wall time (1, double), step (2), file
// version (3, first event only), summary (5) of values (1) with tag (1) and float (2), session log (7) of a status (1).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace onnxpress {

// CRC-32C (Castagnoli).
std::uint32_t crc32c(std::span<const std::byte> bytes);

class EventFile {
 public:
  // A new file in `folder`, which is made where it is missing: "events.out.tfevents.SECONDS.NUMBER.onnxpress".
  // Throws Error when it cannot be made.
  explicit EventFile(const std::filesystem::path& folder);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  // Scalars of one step, at the time of the call; readers see them at once. Throws Error (full disk).
  void add(std::int64_t step, std::span<const std::pair<std::string, double>> scalars);
  // Tells readers that what earlier files of the folder hold from this step on is void (SessionLog, START).
  void restart(std::int64_t step);
  const std::filesystem::path& path() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace onnxpress
