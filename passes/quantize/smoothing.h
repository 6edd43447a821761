// Products whose input channels can be scaled: what SmoothQuant and AWQ have in common.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "passes/core/selector.h"
#include "passes/quantize/channel_classes.h"

namespace onnxpress {

// MatMuls and Gemms that read the same channels, which are divided by `scale` while the rows of their
// weights are multiplied by it.
struct SmoothingSite {
  struct Reader {
    LinearOperator linear;
    Value* input = nullptr;
    std::size_t axis = 0;  // of the channels in the input
  };
  std::vector<Reader> readers;        // at least one; all of as many input channels
  std::vector<std::size_t> classes;   // by channel; empty: a Mul in front takes the factors
};

// Sites of selected products in node order. Where what makes the channels cannot take factors, there is
// a site only with `insert`: a Mul. Products left out are told to `near_misses` as `pass`.
std::vector<SmoothingSite> find_smoothing_sites(Model& model, const ChannelClasses& channels, const Selector& selector,
                                                bool insert, std::string_view pass, std::vector<NearMiss>* near_misses);

// Applies a scale per site and channel (empty: none). Returns how many sites were scaled.
std::size_t smooth(const ChannelClasses& channels, const std::vector<SmoothingSite>& sites,
                   const std::vector<std::vector<double>>& scales);

}  // namespace onnxpress
