// Losses as people write them: "cross_entropy", "elbo(recon,mu,logvar)",
// "0.7*cross_entropy(logits)+0.3*mse(recon,target=x)".
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace onnxpress {

// One term of a weighted sum: [NUMBER*]NAME[(VALUE, ..., SETTING=TEXT, ...)].
struct LossSpec {
  double weight = 1;
  std::string name;                 // "auto", "elbo" or a LossTerm's
  std::vector<std::string> values;  // names of outputs or other values of the graph
  std::map<std::string, std::string> settings;  // target, delta, reduction, ...

  // The setting's number, or `otherwise`; throws Error for text that is none.
  double number(const std::string& setting, double otherwise) const;
  std::string text(const std::string& setting, const std::string& otherwise) const;
};

// Throws Error for text of another form, and with the nearest name for losses and settings that are
// not known.
std::vector<LossSpec> parse_losses(std::string_view text);

}  // namespace onnxpress
