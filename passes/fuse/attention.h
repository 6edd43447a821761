// Attention by heads written out, as exporters of PyTorch write it.
#pragma once

#include "passes/fuse/tracer.h"

namespace onnxpress {

// softmax(scale * Q K' + mask) V of rows [batch, length, heads * width] cut into heads.
struct WrittenAttention {
  Value* query = nullptr;  // [batch, length, heads * width]
  Value* key = nullptr;    // [batch, keys, heads * width]
  Value* value = nullptr;  // [batch, keys, heads * value width]
  Value* mask = nullptr;   // added to the scores; nullptr: none
  std::int64_t heads = 0;
  double scale = 1;
  Region region;
};

// The attention around a Softmax. Says in `reason` why one that looks like it is none.
std::optional<WrittenAttention> find_attention(const Tracer& tracer, Node* softmax,
                                               std::string& reason);

}  // namespace onnxpress
