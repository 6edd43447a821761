// Passes that are made of others: simplify, fuse.
#pragma once

#include "passes/core/pass.h"

namespace onnxpress {

// Runs the registered members of its group (PassInfo::group) in group order, again and again until
// none changes the model. Option `skip` leaves members out, option `rounds` bounds the repetition;
// an option that a member has too is handed to it.
class GroupPass : public Pass {
 public:
  // `info.options` is taken from `options` here.
  GroupPass(PassInfo info, std::vector<OptionSpec> options)
      : info_(info), options_(std::move(options)) {
    info_.options = options_;
  }

  const PassInfo& info() const override { return info_; }
  std::int64_t required_opset(const Model& model, const Options& options) const override;
  void check(const Options& options) const override;
  // Counts are "member.count", summed over rounds; layers carry the member as "pass".
  Outcome run(Model& model, PassContext& context) const override;

  // The options every group has, in front of its own.
  static std::vector<OptionSpec> options(std::initializer_list<OptionSpec> own = {});

 private:
  std::vector<const Pass*> members(const Options& options) const;
  // What a member is run with.
  Options member_options(const Pass& member, const Options& options) const;

  PassInfo info_;
  std::vector<OptionSpec> options_;
};

}  // namespace onnxpress
