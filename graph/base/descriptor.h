// File descriptors that close themselves; what files.cpp and staged_files.cpp share.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace onnxpress {

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }

  explicit operator bool() const { return number_ >= 0; }
  int get() const { return number_; }

 private:
  int number_;
};

// Writes all bytes, however many calls it takes; false with errno set when one fails.
bool write_fully(int descriptor, std::span<const std::byte> bytes);
// "a folder", "a FIFO", ... of a stat mode.
std::string_view kind_of_file(mode_t mode);
// "standard input", "descriptor 5", ... for messages.
std::string name_of_descriptor(int descriptor);

}  // namespace onnxpress
