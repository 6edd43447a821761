// Keeps one of several equal constants: same element type, dims and bytes.
//
// The one with the shortest name stays, in the graph around all of them; constants of sibling
// bodies move there. Constants that are graph outputs stay under their names.
#include <algorithm>
#include <map>
#include <tuple>

#include "graph/base/hash.h"
#include "graph/rewrite/patch.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

using Group = std::vector<Value*>;  // equal constants, in the order of their graphs

// The innermost graph that holds both.
Graph* common_graph(Graph* a, Graph* b) {
  while (!b->is_within(*a)) a = a->parent();
  return a;
}

Hash128 contents_hash(const Tensor& tensor) {
  Hasher hasher;
  if (tensor.dtype() == DType::string)
    for (const std::string& text : tensor.strings()) hasher.add(text);
  else
    hasher.add_bytes(tensor.bytes());
  return hasher.finish();
}

// What of the contents tells most constants apart: both ends and the middle.
Hash128 sample_hash(const Tensor& tensor) {
  constexpr std::size_t piece = 64;
  const std::span<const std::byte> bytes = tensor.bytes();
  if (tensor.dtype() == DType::string || bytes.size() <= 3 * piece) return contents_hash(tensor);
  return Hasher()
      .add_bytes(bytes.first(piece))
      .add_bytes(bytes.subspan(bytes.size() / 2, piece))
      .add_bytes(bytes.last(piece))
      .finish();
}

// Splits a group by a hash; only what has company stays.
template <class Hash>
std::vector<Group> split(const Group& group, Hash&& hash) {
  std::map<Hash128, std::size_t> index;
  std::vector<Group> parts;
  for (Value* value : group) {
    const auto [found, added] = index.emplace(hash(*value->constant()), parts.size());
    if (added) parts.emplace_back();
    parts[found->second].push_back(value);
  }
  std::erase_if(parts, [](const Group& part) { return part.size() < 2; });
  return parts;
}

// Only those that have equals. Contents are read in full only of constants that share type, dims and
// a sample.
std::vector<Group> equal_constants(Graph& root) {
  std::map<std::pair<DType, Dims>, std::size_t> index;
  std::vector<Group> alike;
  root.for_each_graph([&](Graph& graph) {
    for (Value* value : graph.initializers()) {
      const Tensor* tensor = value->constant();
      if (!tensor || !value->initializer()->unknown_fields.empty()) continue;
      const auto [found, added] =
          index.emplace(std::pair(tensor->dtype(), tensor->dims()), alike.size());
      if (added) alike.emplace_back();
      alike[found->second].push_back(value);
    }
  });
  std::vector<Group> groups;
  for (const Group& group : alike) {
    if (group.size() < 2) continue;
    for (const Group& similar : split(group, sample_hash)) {
      for (Group& same : split(similar, contents_hash)) {
        const Tensor& first = *same[0]->constant();
        std::erase_if(same, [&](const Value* value) { return !first.equals(*value->constant()); });
        if (same.size() > 1) groups.push_back(std::move(same));
      }
    }
  }
  return groups;
}

class Deduplicator {
 public:
  Deduplicator(const Model& model, std::vector<NearMiss>* near_misses)
      : model_(model), near_misses_(near_misses) {}

  bool changed() const { return changed_; }
  std::int64_t removed() const { return removed_; }
  std::int64_t bytes() const { return bytes_; }

  void merge(Group group) {
    Graph* around = &group[0]->graph();
    for (Value* value : group) around = common_graph(around, &value->graph());
    const auto rank = [&](const Value* value) {
      return std::tuple(&value->graph() != around, !value->is_output(), value->name().size());
    };
    std::ranges::stable_sort(group, {}, rank);
    Value* kept = group[0];
    if (&kept->graph() != around) {
      kept = move_out(*kept, *around);
      if (!kept) return;
    }
    for (std::size_t i = 1; i < group.size(); ++i) replace(*group[i], *kept);
  }

 private:
  // Up to IR 3 a constant of the main graph is an input too: siblings keep their own then.
  Value* move_out(Value& value, Graph& around) {
    if (model_.ir_version < 4) {
      miss(value, "up to IR version 3 it cannot move to the graph around it and its equals");
      return nullptr;
    }
    Value* moved =
        around.add_initializer(around.unique_name(value.name()), value.initializer()->clone());
    if (!replace(value, *moved)) {
      around.remove_initializer(moved);
      return nullptr;
    }
    --removed_;
    bytes_ -= size(*moved);
    return moved;
  }

  static std::int64_t size(const Value& value) {
    return static_cast<std::int64_t>(value.constant()->byte_size());
  }

  bool replace(Value& value, Value& kept) {
    if (value.is_output())
      return miss(value,
                  fmt::format("it is a graph output, as '{}', its equal, may not be", kept.name()));
    const std::int64_t bytes = size(value);
    const std::int64_t longer = std::ssize(kept.name()) - std::ssize(value.name());
    if (std::ssize(value.uses()) * longer > bytes + std::ssize(value.name()))
      return miss(value,
                  fmt::format("its readers would name '{}': the file would grow", kept.name()));
    Patch patch(value.graph());
    patch.replace(&value, &kept);
    patch.apply();
    ++removed_;
    bytes_ += bytes;
    changed_ = true;
    return true;
  }

  // Returns false, as a replacement that is not made does.
  bool miss(const Value& value, std::string reason) const {
    if (near_misses_)
      near_misses_->push_back({"deduplicate_initializers",
                               fmt::format("initializer '{}'", value.name()), std::move(reason)});
    return false;
  }

  const Model& model_;
  std::vector<NearMiss>* near_misses_;
  bool changed_ = false;
  std::int64_t removed_ = 0;
  std::int64_t bytes_ = 0;
};

class DeduplicateInitializers : public Pass {
 public:
  static constexpr PassInfo pass_info{.name = "deduplicate_initializers",
                                      .summary = "keeps one of several equal constants",
                                      .effect = Effect::exact,
                                      .group = "simplify",
                                      .group_order = 12};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    Deduplicator deduplicator(model, context.near_misses);
    const auto run = [&](Graph& root) {
      for (Group& group : equal_constants(root)) deduplicator.merge(std::move(group));
    };
    run(model.graph);
    for (const auto& function : model.functions) run(function->body);
    return {.changed = deduplicator.changed(),
            .counts = {{"initializers", deduplicator.removed()}, {"bytes", deduplicator.bytes()}}};
  }
};

}  // namespace

PASS(deduplicate_initializers) { registry.add(std::make_unique<DeduplicateInitializers>()); }

}  // namespace onnxpress
