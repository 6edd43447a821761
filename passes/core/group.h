// Passes that are made of others: simplify, fuse.
#pragma once

#include "passes/core/pass.h"

namespace onnxpress {

// Runs the registered members of its group (PassInfo::group) in group order, again and again until
// none changes the model. Option `skip` leaves members out, option `rounds` bounds the repetition.
class GroupPass : public Pass {
 public:
  explicit GroupPass(PassInfo info) : info_(info) {}

  const PassInfo& info() const override { return info_; }
  std::int64_t required_opset(const Model& model, const Options& options) const override;
  void check(const Options& options) const override;
  // Counts are "member.count", summed over rounds; layers carry the member as "pass".
  Outcome run(Model& model, PassContext& context) const override;

  // The options every group has.
  static std::span<const OptionSpec> options();

 private:
  std::vector<const Pass*> members(const Options& options) const;

  PassInfo info_;
};

}  // namespace onnxpress
