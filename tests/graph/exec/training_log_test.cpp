// Logs of training: lines of JSON, and event files read back byte by byte.
#include "graph/exec/training_log.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "graph/exec/event_file.h"
#include "graph/onnx/wire.h"
#include "tests/graph/base/temporary_folder.h"

namespace onnxpress {
namespace {

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

template <class T>
T little_endian(std::string_view text) {
  T value{};
  std::memcpy(&value, text.data(), sizeof value);
  return value;
}

struct Scalar {
  std::int64_t step;
  std::string tag;
  float value;
  bool operator==(const Scalar&) const = default;
};

// The scalars of an event file; checks its frames.
std::vector<Scalar> read_events(const std::filesystem::path& path) {
  const std::string file = contents(path);
  std::vector<Scalar> scalars;
  bool is_first = true;
  for (std::string_view rest = file; !rest.empty();) {
    REQUIRE(rest.size() >= 16);
    const auto masked = [](std::string_view text) { return std::rotr(crc32c(bytes(text)), 15) + 0xa282ead8U; };
    const auto length = little_endian<std::uint64_t>(rest);
    CHECK(little_endian<std::uint32_t>(rest.substr(8)) == masked(rest.substr(0, 8)));
    REQUIRE(rest.size() >= 16 + length);
    const std::string_view event = rest.substr(12, length);
    CHECK(little_endian<std::uint32_t>(rest.substr(12 + length)) == masked(event));
    rest.remove_prefix(16 + length);
    std::int64_t step = 0;
    wire::Reader reader(bytes(event));
    for (wire::Field field; reader.next(field);) {
      if (field.tag == wire::fixed64(1)) CHECK(std::bit_cast<double>(field.value) > 1.7e9);
      if (field.tag == wire::varint(2)) step = field.integer();
      if (field.tag == wire::delimited(3)) CHECK((is_first && field.text() == "brain.Event:2"));
      if (field.tag != wire::delimited(5)) continue;
      wire::Reader values = reader.nested(field);
      for (wire::Field value; values.next(value);) {
        Scalar scalar{.step = step, .tag = {}, .value = 0};
        wire::Reader parts = values.nested(value);
        for (wire::Field part; parts.next(part);) {
          if (part.tag == wire::delimited(1)) scalar.tag = part.string();
          if (part.tag == wire::fixed32(2)) scalar.value = part.float32();
        }
        scalars.push_back(scalar);
      }
    }
    is_first = false;
  }
  return scalars;
}

TEST_CASE("CRC-32C is that of RFC 3720") {
  CHECK(crc32c(bytes("123456789")) == 0xe3069283U);
  CHECK(crc32c(bytes(std::string(32, '\0'))) == 0x8a9136aaU);
  CHECK(crc32c({}) == 0);
}

TEST_CASE("steps and epochs become lines and scalars") {
  const TemporaryFolder folder;
  const std::filesystem::path lines = folder / "log.jsonl", events = folder / "board" / "run";
  {
    const auto log =
        std::make_shared<TrainingLog>(TrainingLogFiles{.json_lines = lines, .tensorboard = events, .every = 2});
    int told = 0;
    const FitObserver observer =
        TrainingLog::observer(log, {.begin = {}, .step = [&](const StepRecord&) { ++told; }, .epoch = {}});
    observer.begin({.samples = 10, .held_out = 2, .epochs = 1, .batch = 4});
    observer.step({.step = 1, .epoch = 1, .done = 4, .total = 10, .loss = 2, .terms = {1.5, 0.5}, .rate = 0.1});
    observer.step(
        {.step = 2, .epoch = 1, .done = 8, .total = 10, .loss = 1, .terms = {0.5, 0.5}, .rate = 0.1, .norm = 3});
    observer.step({.step = 3, .epoch = 1, .done = 10, .total = 10, .loss = 0.5, .terms = {0.25, 0.25}, .rate = 0.05});
    observer.epoch({.epoch = 1, .step = 3, .loss = 1.25, .held_loss = 0.75, .rate = 0.05, .seconds = 2, .samples = 10});
    CHECK(told == 3);
  }
  CHECK(contents(lines) ==
        R"({"type":"begin","samples":10,"held_out":2,"epochs":1,"batch":4,"first_epoch":1}
{"type":"step","step":2,"epoch":1,"done":8,"total":10,"loss":1.5,"terms":[1,0.5],"learning_rate":0.1,"gradient_norm":3}
{"type":"step","step":3,"epoch":1,"done":10,"total":10,"loss":0.5,"terms":[0.25,0.25],"learning_rate":0.05,"gradient_norm":null}
{"type":"epoch","epoch":1,"step":3,"loss":1.25,"held_out_loss":0.75,"held_out_accuracy":null,"learning_rate":0.05,"samples":10,"seconds":2}
)");
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(events)) found.push_back(entry.path());
  REQUIRE(found.size() == 1);
  CHECK(found[0].filename().string().starts_with("events.out.tfevents."));
  CHECK(read_events(found[0]) == std::vector<Scalar>{{2, "train/loss", 1.5F},
                                                     {2, "train/learning_rate", 0.1F},
                                                     {2, "train/loss_1", 1},
                                                     {2, "train/loss_2", 0.5F},
                                                     {2, "train/gradient_norm", 3},
                                                     {3, "train/loss", 0.5F},
                                                     {3, "train/learning_rate", 0.05F},
                                                     {3, "train/loss_1", 0.25F},
                                                     {3, "train/loss_2", 0.25F},
                                                     {3, "epoch/loss", 1.25F},
                                                     {3, "epoch/held_out_loss", 0.75F},
                                                     {3, "epoch/samples_per_second", 5}});
}

TEST_CASE("a run that goes on keeps the lines and begins another event file") {
  const TemporaryFolder folder;
  const TrainingLogFiles files{.json_lines = folder / "log.jsonl", .tensorboard = folder / "board"};
  TrainingLog(files).epoch({.epoch = 1, .loss = std::nan("")});
  TrainingLogFiles further = files;
  further.append = true;
  TrainingLog(further).epoch({.epoch = 2, .loss = 1});
  const std::string text = contents(files.json_lines);
  CHECK(std::ranges::count(text, '\n') == 2);
  CHECK(text.find(R"("epoch":1,"step":0,"loss":null)") != std::string::npos);
  CHECK(std::distance(std::filesystem::directory_iterator(folder / "board"), {}) == 2);
  TrainingLog(files).epoch({.epoch = 3, .loss = 1});
  CHECK(contents(files.json_lines).starts_with(R"({"type":"epoch","epoch":3)"));
}

TEST_CASE("logs that cannot be written are told before training") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(TrainingLog({.json_lines = folder / "no" / "log.jsonl"}), doctest::Contains("cannot write"),
                       Error);
  folder.write("file", "x");
  CHECK_THROWS_WITH_AS(TrainingLog({.json_lines = {}, .tensorboard = folder / "file"}),
                       doctest::Contains("cannot make the folder"), Error);
}

}  // namespace
}  // namespace onnxpress
