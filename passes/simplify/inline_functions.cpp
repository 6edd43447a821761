// Puts the bodies of model-local functions in the place of their calls, as long as the file does
// not grow: a function called once goes, one called many times mostly stays.
#include "graph/onnx/writer.h"
#include "graph/rewrite/inline.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

std::string describe(const Function& function) {
  return fmt::format("function '{}' ({}{})", function.name, function.domain,
                     function.overload.empty() ? "" : ", overload " + function.overload);
}

class InlineFunctions : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "inline_functions",
      .summary = "puts functions in place of their calls, where that does not grow the file",
      .effect = Effect::exact,
      .group = "simplify",
      .group_order = 5};

  const PassInfo& info() const override { return pass_info; }

  // Each is tried on a copy (which shares the weights) first: the file's size decides.
  Outcome run(Model& model, PassContext& context) const override {
    std::int64_t calls = 0, functions = 0, kept = 0;
    std::size_t bytes = model.functions.empty() ? 0 : serialized_size(model);
    std::vector<NearMiss> misses;
    // One that stayed may go once those that it calls, or that call it, have gone.
    for (bool again = true; again;) {
      again = false;
      misses.clear();
      for (std::size_t i = model.functions.size(); i-- > 0;) {
        const std::unique_ptr<Model> trial = model.clone();
        const std::string subject = describe(*model.functions[i]);
        try {
          const std::int64_t count = inline_function(*trial, *trial->functions[i]);
          const std::size_t size = serialized_size(*trial);
          if (size > bytes) {
            misses.push_back({"inline_functions", subject,
                              fmt::format("{} calls: inlined, they would take {} more bytes", count,
                                          size - bytes)});
            continue;
          }
          calls += inline_function(model, *model.functions[i]);
          bytes = size;
          ++functions;
          again = true;
        } catch (const Error& error) {
          misses.push_back({"inline_functions", subject, error.what()});
        }
      }
    }
    kept = std::ssize(model.functions);
    if (context.near_misses)
      context.near_misses->insert(context.near_misses->end(), misses.begin(), misses.end());
    return {.changed = functions > 0,
            .counts = {{"functions", functions}, {"calls", calls}, {"kept", kept}}};
  }
};

}  // namespace

PASS(inline_functions) { registry.add(std::make_unique<InlineFunctions>()); }

}  // namespace onnxpress
