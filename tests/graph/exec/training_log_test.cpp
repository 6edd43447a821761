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
        TrainingLog::observer(log, "finetune", {.begin = {}, .step = [&](const StepRecord&) { ++told; }, .epoch = {}});
    observer.begin({.samples = 10, .held_out = 2, .epochs = 1, .batch = 4});
    observer.step({.step = 1, .epoch = 1, .done = 4, .total = 10, .loss = 2, .terms = {1.5, 0.5}, .rate = 0.1});
    observer.step(
        {.step = 2, .epoch = 1, .done = 8, .total = 10, .loss = 1, .terms = {0.5, 0.5}, .rate = 0.1, .norm = 3});
    observer.step({.step = 3, .epoch = 1, .done = 10, .total = 10, .loss = 0.5, .terms = {0.25, 0.25}, .rate = 0.05});
    observer.epoch({.epoch = 1, .step = 3, .loss = 1.25, .held_loss = 0.75, .rate = 0.05, .seconds = 2, .samples = 10});
    CHECK(told == 3);
  }
  CHECK(contents(lines) ==
        R"({"type":"begin","pass":"finetune","training":1,"samples":10,"held_out":2,"epochs":1,"batch":4,"first_epoch":1}
{"type":"step","pass":"finetune","training":1,"step":2,"epoch":1,"done":8,"total":10,"loss":1.5,"terms":[1,0.5],"learning_rate":0.1,"gradient_norm":3}
{"type":"step","pass":"finetune","training":1,"step":3,"epoch":1,"done":10,"total":10,"loss":0.5,"terms":[0.25,0.25],"learning_rate":0.05,"gradient_norm":null}
{"type":"epoch","pass":"finetune","training":1,"epoch":1,"step":3,"loss":1.25,"held_out_loss":0.75,"held_out_accuracy":null,"learning_rate":0.05,"samples":10,"seconds":2}
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

// Epochs of 2 steps of 4 samples, from a step on, as fit tells them; `last` is the last one of both.
void train(TrainingLog& log, const std::string& pass, std::int64_t epochs, std::int64_t first = 1,
           std::int64_t last = 1000) {
  log.begin(pass, {.samples = 8, .epochs = epochs, .batch = 4, .first_epoch = (first - 1) / 2 + 1});
  for (std::int64_t step = first; step <= std::min(last, 2 * epochs); ++step) {
    const std::int64_t epoch = (step - 1) / 2 + 1, done = step % 2 == 1 ? 4 : 8;
    log.step({.step = step, .epoch = epoch, .done = done, .total = 8, .loss = 1});
    if (done == 8) log.epoch({.epoch = epoch, .step = step, .loss = 1});
  }
}

// The folders, or files, by name.
std::vector<std::string> listed(const std::filesystem::path& folder, bool folders) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.is_directory() == folders) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

TEST_CASE("several trainings of a run are told apart") {
  const TemporaryFolder folder;
  TrainingLog log({.json_lines = folder / "log.jsonl", .tensorboard = folder / "board"});
  train(log, "finetune", 1);
  train(log, "quantize_aware", 1);
  CHECK(contents(folder / "log.jsonl").find(R"({"type":"step","pass":"finetune","training":1,"step":1,)") !=
        std::string::npos);
  CHECK(contents(folder / "log.jsonl").find(R"({"type":"step","pass":"quantize_aware","training":2,"step":1,)") !=
        std::string::npos);
  CHECK(listed(folder / "board", false).size() == 1);
  CHECK(listed(folder / "board", true) == std::vector<std::string>{"2-quantize_aware"});
  CHECK(listed(folder / "board" / "2-quantize_aware", false).size() == 1);
}

TEST_CASE("a run that goes on ends with the lines of one that was never stopped") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "log.jsonl";
  const auto whole = [&](std::int64_t every) {
    TrainingLog log({.json_lines = path, .every = every});
    train(log, "a", 2);
    train(log, "b", 5);
    return contents(path);
  };
  const TrainingLogFiles further{.json_lines = path, .tensorboard = folder / "board", .append = true};
  const std::string expected = whole(1);
  for (const std::int64_t kept : {0, 1, 2, 3, 6, 7, 9})
    for (const std::int64_t killed : {kept, kept + 1, kept + 2})
      for (const char* torn : {"", R"({"type":"step","pass":"b","trai)"}) {
        CAPTURE(kept);
        CAPTURE(killed);
        {
          TrainingLog log({.json_lines = path});
          train(log, "a", 2);
          if (killed > 0) train(log, "b", 5, 1, killed);
        }
        std::ofstream(path, std::ios::app) << torn;
        TrainingLog log(further);
        train(log, "a", 2, 5);
        train(log, "b", 5, kept + 1);
        CHECK(contents(path) == expected);
      }
  // Records of several steps stay where they were.
  const std::string pairs = whole(3);
  {
    TrainingLog log({.json_lines = path, .every = 3});
    train(log, "a", 2);
    train(log, "b", 5, 1, 6);
  }
  TrainingLogFiles threes = further;
  threes.every = 3;
  TrainingLog log(threes);
  train(log, "a", 2, 5);
  train(log, "b", 5, 5);
  CHECK(contents(path) == pairs);
}

TEST_CASE("lines of something else are kept by a run that goes on, and dropped by another") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "log.jsonl";
  std::ofstream(path) << "{\"note\":\"mine\"}\n";
  {
    TrainingLog log({.json_lines = path, .append = true});
    train(log, "a", 1);
  }
  CHECK(contents(path).starts_with("{\"note\":\"mine\"}\n{\"type\":\"begin\""));
  TrainingLog log({.json_lines = path});
  train(log, "a", 1);
  CHECK(contents(path).starts_with("{\"type\":\"begin\""));
}

TEST_CASE("logs that cannot be written are told before training, and numbers that are none are null") {
  const TemporaryFolder folder;
  TrainingLog nowhere({.json_lines = folder / "no" / "log.jsonl"});
  CHECK_THROWS_WITH_AS(nowhere.begin("a", {}), doctest::Contains("cannot write"), Error);
  folder.write("file", "x");
  TrainingLog in_file({.json_lines = {}, .tensorboard = folder / "file"});
  CHECK_THROWS_WITH_AS(in_file.begin("a", {.epochs = 1}), doctest::Contains("cannot make the folder"), Error);
  TrainingLog log({.json_lines = folder / "log.jsonl"});
  log.begin("a", {.epochs = 1});
  log.epoch({.epoch = 1, .loss = std::nan("")});
  CHECK(contents(folder / "log.jsonl").find(R"("epoch":1,"step":0,"loss":null)") != std::string::npos);
}

}  // namespace
}  // namespace onnxpress
