// Gelu written out (Hendrycks and Gimpel 2016): x/2 (1 + erf(x / sqrt 2)), its approximation x/2 (1
// + tanh(sqrt(2/pi) (x + 0.044715 x^3))), and x sigmoid(1.702 x).
#include <cmath>
#include <numbers>

#include "graph/ops/activations.h"
#include "graph/ops/introduced.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

struct FoundGelu {
  Value* x = nullptr;
  Region region;
};

// Behind `gate`, erf or tanh: (1 + gate) * x / 2 in any order.
std::vector<Tracer::Gated> halved_products(const Tracer& tracer, Node* gate) {
  std::vector<Tracer::Gated> found;
  for (const Use& sum : tracer.readers(gate, {"Add"})) {
    if (!tracer.is_factor(sum.node->input(1 - sum.index), gate->output(), 1)) continue;
    for (Tracer::Gated& reading : tracer.gated(sum.node)) {
      if (reading.x == nullptr || std::abs(reading.number - 0.5) > 1e-6) continue;
      reading.region.nodes.insert(reading.region.nodes.begin(), {gate, sum.node});
      found.push_back(std::move(reading));
    }
  }
  return found;
}

// As far as the numbers can be told from what the exporter wrote.
bool is_gelu_argument(const Tracer& tracer, const Polynomial& found, bool by_tanh, DType type) {
  const double factor = std::sqrt(2 * std::numbers::inv_pi);
  const Polynomial wanted = by_tanh ? Polynomial{0, factor, 0, factor * 0.044715}
                                    : Polynomial{0, std::numbers::sqrt2 / 2};
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (!tracer.is_near(found[i], wanted[i], type)) return false;
  return true;
}

std::optional<FoundGelu> find_gelu(const Match& match, std::string& reason, bool runtime) {
  const Tracer tracer(match);
  const bool by_tanh = match.root->is("Tanh");
  for (Tracer::Gated& reading : halved_products(tracer, match.root)) {
    FoundGelu found{.x = reading.x, .region = std::move(reading.region)};
    const auto argument = tracer.polynomial(match.root->input(0), found.x, found.region.nodes);
    if (!argument) continue;
    if (!is_gelu_argument(tracer, *argument, by_tanh, tracer.dtype(found.x))) {
      reason = "its numbers are not those of Gelu";
      continue;
    }
    if (const auto obstacle = tracer.obstacle(found.region)) {
      reason = *obstacle;
      continue;
    }
    if (const auto missing = missing_operator(match.root->graph(), "Gelu"); missing && !runtime) {
      reason = *missing;
      return std::nullopt;
    }
    return found;
  }
  return std::nullopt;
}

// ONNX's operator where the opset has it, else ONNX Runtime's.
void build_gelu(const Match& match, const FoundGelu& found, Patch& patch) {
  const bool by_tanh = match.root->is("Tanh");
  Patch::NodeTemplate node{.op_type = "Gelu", .inputs = {found.x}};
  if (!missing_operator(match.root->graph(), "Gelu")) {
    node.attributes = gelu_attributes(by_tanh);
  } else {
    node.domain = "com.microsoft";
    if (by_tanh) node.op_type = "FastGelu";
  }
  replace_region(patch, found.region, std::move(node));
}

class FuseGelu : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "fuse_gelu",
      .summary = "Gelu written out, with erf or tanh, becomes one operator",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 4};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    const auto find = [runtime = is_runtime_level(options)](const Match& match,
                                                            std::string& reason) {
      return find_gelu(match, reason, runtime);
    };
    return {recognition_rule<FoundGelu>("fuse_gelu", "Erf|Tanh", find, build_gelu)};
  }
};

}  // namespace

PASS(fuse_gelu) { registry.add(std::make_unique<FuseGelu>()); }

}  // namespace onnxpress
