// The normalized sum of word, position and segment embeddings as ONNX Runtime's
// EmbedLayerNormalization. Its indices are int32, and none may be negative.
#include <utility>
#include <vector>

#include "graph/ops/float_types.h"
#include "graph/ops/gather.h"
#include "graph/ops/layer_norm.h"
#include "passes/core/registry.h"
#include "passes/fuse/level.h"
#include "passes/fuse/tracer.h"

namespace onnxpress {
namespace {

// Rows of `table` [rows, width] by `indices`.
struct Lookup {
  Value* table = nullptr;
  Value* indices = nullptr;
};

struct EmbedNorm {
  Lookup words, positions, segments;  // segments: perhaps none
  bool counted = false;               // positions are 0, 1, 2, ...
  Region region;
};

class EmbedFinder {
 public:
  EmbedFinder(const Match& match, std::string& reason) : tracer_(match), reason_(reason) {}

  std::optional<EmbedNorm> run(Node& norm) {
    if (!collect(norm.input(0), 0) || lookups_.size() < 2 || lookups_.size() > 3)
      return std::nullopt;
    if (!take_words() || !take_positions() || !take_segments() || !fits(norm)) return std::nullopt;
    found_.region.nodes.push_back(&norm);
    found_.region.last = &norm;
    if (const auto obstacle = tracer_.obstacle(found_.region)) return refuse(*obstacle);
    return found_;
  }

 private:
  std::nullopt_t refuse(std::string reason) {
    reason_ = std::move(reason);
    return std::nullopt;
  }

  // The lookups that a sum is made of.
  bool collect(Value* value, int depth) {
    if (Node* const sum = tracer_.maker(value, {"Add"}); sum != nullptr && depth < 2) {
      found_.region.nodes.push_back(sum);
      return collect(sum->input(0), depth + 1) && collect(sum->input(1), depth + 1);
    }
    Node* const gather = tracer_.maker(value, {"Gather"});
    if (gather == nullptr || gather_axis(*gather) != 0 || tracer_.rank(gather->input(0)) != 2)
      return false;
    found_.region.nodes.push_back(gather);
    lookups_.push_back({gather->input(0), gather->input(1)});
    return true;
  }

  bool is_index(const Value* value) const {
    const DType type = tracer_.dtype(value);
    return type == DType::int32 || type == DType::int64;
  }

  // Of `wanted` dims: [batch, length] of the words.
  bool has_dims(const Value* indices, const Dim& batch, const Dim& length) const {
    const Shape* const shape = tracer_.shape(indices);
    return shape != nullptr && shape->size() == 2 && same_dim((*shape)[0], batch) &&
           same_dim((*shape)[1], length);
  }

  // 0, 1, 2, ... for each of `length` words.
  bool counts(const Value* indices, const Dim& length) const {
    const Shape* const shape = tracer_.shape(indices);
    if (shape == nullptr || shape->empty() || !same_dim(shape->back(), length)) return false;
    if (shape->size() > 2 || (shape->size() == 2 && shape->front().value() != 1)) return false;
    if (const Tensor* known = tracer_.known(indices)) {
      const std::vector<std::int64_t> values = known->to_ints();
      for (std::size_t i = 0; i < values.size(); ++i)
        if (values[i] != static_cast<std::int64_t>(i)) return false;
      return true;
    }
    const Node* range = tracer_.maker(indices, {"Range"});
    if (const Node* const unsqueeze = tracer_.maker(indices, {"Unsqueeze"}))
      range = tracer_.maker(unsqueeze->input(0), {"Range"});
    return range != nullptr && tracer_.number(range->input(0)) == 0.0 &&
           tracer_.number(range->input(2)) == 1.0;
  }

  // The lookup by an index for each word of each row of the batch. Of several, which add up the same
  // in any order, the one with most rows to look up.
  bool take_words() {
    const auto rank = [&](const Lookup& lookup) {
      return std::pair(tracer_.shape(lookup.indices)->front().value() != 1, rows(lookup));
    };
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < lookups_.size(); ++i) {
      const Value* const indices = lookups_[i].indices;
      if (tracer_.rank(indices) != 2 || !is_index(indices) || tracer_.known(indices) != nullptr)
        continue;
      if (!best || rank(lookups_[i]) > rank(lookups_[*best])) best = i;
    }
    if (!best) return false;
    found_.words = lookups_[*best];
    lookups_.erase(lookups_.begin() + static_cast<std::ptrdiff_t>(*best));
    const Shape& shape = *tracer_.shape(found_.words.indices);
    batch_ = shape[0];
    length_ = shape[1];
    return true;
  }

  std::int64_t rows(const Lookup& lookup) const {
    const Shape* const shape = tracer_.shape(lookup.table);
    return shape != nullptr && shape->front().is_known() ? shape->front().value() : 0;
  }

  bool take_positions() {
    for (std::size_t i = 0; i < lookups_.size(); ++i) {
      const Value* const indices = lookups_[i].indices;
      found_.counted = counts(indices, length_);
      const bool given = has_dims(indices, Dim(1), length_) && is_index(indices);
      if (!found_.counted && !given) continue;
      found_.positions = lookups_[i];
      lookups_.erase(lookups_.begin() + static_cast<std::ptrdiff_t>(i));
      return true;
    }
    refuse("none of the embeddings in its sum is known to be by position");
    return false;
  }

  bool take_segments() {
    if (lookups_.empty()) return true;
    found_.segments = lookups_.front();
    if (has_dims(found_.segments.indices, batch_, length_) && is_index(found_.segments.indices))
      return true;
    refuse(fmt::format("'{}' is {}, expected an index for each word",
                       found_.segments.indices->name(),
                       to_string(tracer_.type(found_.segments.indices))));
    return false;
  }

  // A normalization of rows as wide as all tables, with scale and bias.
  bool fits(const Node& norm) {
    const auto rank = tracer_.rank(norm.input(0));
    const Shape* const words = tracer_.shape(found_.words.table);
    if (rank != 3 || normalize_axis(LayerNormAttrs::from(norm).axis, 3) != 2) return false;
    const Dim width = words->back();
    const DType type = tracer_.dtype(found_.words.table);
    for (std::size_t i = 1; i < norm.output_count(); ++i)
      if (norm.output(i) != nullptr && !norm.output(i)->is_unused()) {
        refuse("its mean or deviation is read");
        return false;
      }
    for (const Value* table : {found_.positions.table, found_.segments.table})
      if (table != nullptr &&
          (tracer_.dtype(table) != type || !same_dim(tracer_.shape(table)->back(), width))) {
        refuse(fmt::format("'{}' is not known to be as wide as '{}'", table->name(),
                           found_.words.table->name()));
        return false;
      }
    for (const std::size_t index : {std::size_t{1}, std::size_t{2}}) {
      const Value* const row = norm.input(index);
      const Shape* const shape = row != nullptr ? tracer_.shape(row) : nullptr;
      if (shape != nullptr && shape->size() == 1 && width.is_known() &&
          same_dim(shape->front(), width) && tracer_.dtype(row) == type)
        continue;
      refuse("its scale and bias are not known to be vectors with a value for each element of a row");
      return false;
    }
    const auto obstacle = tracer_.type_obstacle(found_.words.table);
    if (obstacle) refuse(*obstacle);
    return !obstacle;
  }

  Tracer tracer_;
  std::string& reason_;
  std::vector<Lookup> lookups_;
  Dim batch_, length_;
  EmbedNorm found_;
};

std::optional<EmbedNorm> find(const Match& match, std::string& reason) {
  return EmbedFinder(match, reason).run(*match.root);
}

void build(const Match& match, const EmbedNorm& found, Patch& patch) {
  const Node& norm = *match.root;
  const auto index = [&](Value* value) -> Patch::Ref {
    if (value == nullptr || match.type(value).elem == DType::int32) return value;
    OpCall cast = make_cast(norm.opset(), DType::int32);
    return patch.node({.op_type = std::move(cast.op_type),
                       .inputs = {value},
                       .attributes = std::move(cast.attributes)});
  };
  Patch::NodeTemplate node{.op_type = "EmbedLayerNormalization",
                           .domain = "com.microsoft",
                           .name = norm.name,
                           .inputs = {index(found.words.indices), index(found.segments.indices),
                                      found.words.table, found.positions.table,
                                      found.segments.table, norm.input(1), norm.input(2)},
                           // ONNX Runtime's shape rule asks for a place of the second.
                           .outputs = 2};
  node.attributes["epsilon"] = LayerNormAttrs::from(norm).epsilon;
  if (!found.counted) {
    node.inputs.emplace_back();
    node.inputs.push_back(index(found.positions.indices));
  }
  replace_region(patch, found.region, std::move(node));
}

class RuntimeEmbedNorm : public LevelRulePass {
 public:
  static constexpr PassInfo pass_info{
      .name = "runtime_embed_norm",
      .summary =
          "the normalized sum of word, position and segment embeddings becomes ONNX Runtime's "
          "EmbedLayerNormalization",
      .options = level_options,
      .effect = Effect::rounding,
      .group = "fuse",
      .group_order = 75};

  const PassInfo& info() const override { return pass_info; }

 protected:
  std::vector<Rule> rules(const Model&, const Options& options) const override {
    if (!is_runtime_level(options)) return {};
    return {recognition_rule<EmbedNorm>("runtime_embed_norm", "LayerNormalization", find, build)};
  }
};

}  // namespace

PASS(runtime_embed_norm) { registry.add(std::make_unique<RuntimeEmbedNorm>()); }

}  // namespace onnxpress
