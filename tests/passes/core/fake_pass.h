// Passes made of a function, for the tests of this folder.
#pragma once

#include <functional>

#include "passes/core/registry.h"

namespace onnxpress {

using RunFunction = std::function<Outcome(Model&, PassContext&)>;

class FakePass : public Pass {
 public:
  FakePass(PassInfo info, RunFunction run) : info_(info), run_(std::move(run)) {}

  const PassInfo& info() const override { return info_; }
  Outcome run(Model& model, PassContext& context) const override { return run_(model, context); }

 private:
  PassInfo info_;
  RunFunction run_;
};

constexpr OptionSpec fake_options[] = {
    {.name = "bits",
     .kind = OptionSpec::Kind::integer,
     .default_value = "8",
     .help = "",
     .min = 2,
     .max = 8},
    {.name = "ratio",
     .kind = OptionSpec::Kind::number,
     .default_value = "0.5",
     .help = "",
     .min = 0,
     .max = 1},
    {.name = "per_channel", .kind = OptionSpec::Kind::flag, .default_value = "true", .help = ""},
    {.name = "scheme",
     .kind = OptionSpec::Kind::choice,
     .default_value = "static",
     .help = "",
     .choices = "static|dynamic"},
    {.name = "select", .kind = OptionSpec::Kind::selector, .help = ""},
    {.name = "comment", .kind = OptionSpec::Kind::text, .help = ""},
    {.name = "limit", .kind = OptionSpec::Kind::integer, .help = "", .min = 1},
};

// Registers `fake` (with fake_options), `plain` and `other` (without options) once.
inline void register_fakes() {
  static const bool done = [] {
    const RunFunction idle = [](Model&, PassContext&) { return Outcome{}; };
    passes().add(std::make_unique<FakePass>(
        PassInfo{.name = "fake", .summary = "", .options = fake_options}, idle));
    passes().add(std::make_unique<FakePass>(
        PassInfo{.name = "plain", .summary = "", .group = "group", .group_order = 2}, idle));
    passes().add(std::make_unique<FakePass>(
        PassInfo{.name = "other", .summary = "", .group = "group", .group_order = 1}, idle));
    return true;
  }();
  static_cast<void>(done);
}

// The message of the Error that `body` throws, or "none".
template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

}  // namespace onnxpress
