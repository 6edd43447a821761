// Residual blocks: what is between a value and the Add that brings it back.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "graph/ir/model.h"

namespace onnxpress {

// A part of the network that gives what it is given in dims and type, so that it can be left out:
// one residual connection, or several in a row where these repeat (attention and feed-forward network
// of a transformer's layer).
struct ResidualBlock {
  Value* input = nullptr;
  Value* output = nullptr;  // what the next block, or whatever follows, reads
  std::string name;         // of its first Add
};

// Blocks that follow each other directly and are built alike.
struct ResidualChain {
  std::vector<ResidualBlock> blocks;
};

// Of the main graph, in order. Skip connections around other residual connections (the outer ones of
// a U-Net) are no blocks. Fills in the types of the model's values first.
std::vector<ResidualChain> residual_chains(Model& model);

// Which of `count` blocks stay when ceil(share * count) do: evenly spread, always with the last, at
// least one. share: above 0, at most 1.
std::vector<std::size_t> evenly_kept(std::size_t count, double share);

// Makes readers of each block's output read its input, and removes what nothing reads any more.
void drop_blocks(Model& model, const std::vector<ResidualBlock>& blocks);

}  // namespace onnxpress
