#include "passes/quantize/smoothing.h"

#include <algorithm>
#include <map>
#include <set>

#include "graph/ops/infer.h"
#include "graph/rewrite/patch.h"

namespace onnxpress {
namespace {

bool is_product(const Node& node) { return node.is("MatMul") || node.is("Gemm"); }

class SiteFinder {
 public:
  SiteFinder(Model& model, const ChannelClasses& channels) : channels_(channels), types_(model) { types_.run(); }

  // The product as a reader of its input; a reason where it is none.
  std::optional<SmoothingSite::Reader> reader(Node& node, std::string& reason) const {
    const Value* weight = node.input(1);
    if (!weight || !weight->constant() || weight->constant()->rank() != 2 || !is_float(weight->constant()->dtype()) ||
        bits(weight->constant()->dtype()) < 16 || weight->constant()->size() == 0) {
      reason = "its weight is no matrix of floating-point constants";
      return std::nullopt;
    }
    if (!is_read_once(*weight)) {
      reason = fmt::format("weight '{}' has another reader", weight->name());
      return std::nullopt;
    }
    const Type& type = types_.type(node.input(0));
    if (!type.shape || type.shape->empty()) {
      reason = fmt::format("the rank of '{}' is not known", node.input(0)->name());
      return std::nullopt;
    }
    SmoothingSite::Reader found{LinearOperator::of(node), node.input(0), 0};
    found.axis = type.shape->size() - 1 - (found.linear.data_transposed ? 1 : 0);
    return found;
  }

  // Classes of the input's channels when each is free, and all products of them read the same channels
  // in the same order; the other readers are put in.
  bool free_site(SmoothingSite& site, const Selector& selector, std::string& reason) const {
    const ScalingEnd* end = channels_.find(*site.readers[0].linear.node);
    if (!end || end->in.empty() || std::ranges::find(end->in, ChannelClasses::fixed) != end->in.end()) {
      reason = fmt::format("what makes '{}' can take no factors by channel", site.readers[0].input->name());
      return false;
    }
    const std::set<std::size_t> distinct(end->in.begin(), end->in.end());
    if (distinct.size() != end->in.size()) {
      reason = fmt::format("channels of '{}' are tied to each other", site.readers[0].input->name());
      return false;
    }
    std::set<std::size_t> others;
    for (const std::size_t number : end->in)
      for (const ChannelClass::Member& member : channels_.classes()[number].consumers) others.insert(member.end);
    std::vector<SmoothingSite::Reader> readers;
    for (const std::size_t number : others) {
      const ScalingEnd& other = channels_.ends()[number];
      if (!other.linear || !is_product(*other.node) || other.in != end->in || !selector.matches(*other.node)) {
        reason = fmt::format("{} reads the same channels otherwise", other.node->describe());
        return false;
      }
      readers.push_back({*other.linear, other.node->input(0), other.in_axis});
    }
    site.readers = std::move(readers);
    site.classes = end->in;
    return true;
  }

 private:
  const ChannelClasses& channels_;
  TypeInference types_;
};

// A Mul by 1 / scale between the input and its readers, whose weights take the scale.
void insert_scale(const SmoothingSite& site, const std::vector<double>& scale) {
  std::map<Value*, std::vector<const SmoothingSite::Reader*>> by_input;
  for (const SmoothingSite::Reader& reader : site.readers) by_input[reader.input].push_back(&reader);
  for (const auto& [input, readers] : by_input) {
    Graph& graph = readers[0]->linear.node->graph();
    Patch patch(graph);
    const DType type = readers[0]->linear.weight->dtype();
    std::vector<double> inverse;
    for (const double s : scale) inverse.push_back(1 / s);
    Dims dims{std::ssize(scale)};
    if (readers[0]->linear.data_transposed) dims.push_back(1);
    const Patch::Ref scaled = patch.node({.op_type = "Mul",
                                          .name = input->name() + "_smooth",
                                          .inputs = {input, patch.constant(input->name() + "_smooth_scale",
                                                                           Tensor::of<double>(dims, inverse).cast(type))},
                                          .attributes = {}});
    for (const SmoothingSite::Reader* reader : readers) {
      patch.replace_input(reader->linear.node, 0, scaled);
      patch.set_constant(reader->linear.node->input(1), reader->linear.scaled_inputs(scale));
    }
    patch.apply();
  }
}

}  // namespace

std::vector<SmoothingSite> find_smoothing_sites(Model& model, const ChannelClasses& channels, const Selector& selector,
                                                bool insert, std::string_view pass, std::vector<NearMiss>* near_misses) {
  const SiteFinder finder(model, channels);
  std::vector<SmoothingSite> sites;
  std::set<const Node*> taken;
  std::map<std::pair<const Value*, const Graph*>, std::size_t> inserted;  // site by input
  model.graph.for_each_graph([&](Graph& graph) {
    for (Node* node : graph.nodes()) {
      if (!is_product(*node) || taken.contains(node) || !selector.matches(*node)) continue;
      std::string reason;
      std::optional<SmoothingSite::Reader> reader = finder.reader(*node, reason);
      SmoothingSite site;
      if (reader) {
        site.readers = {*reader};
        if (finder.free_site(site, selector, reason)) {
          for (const SmoothingSite::Reader& other : site.readers) taken.insert(other.linear.node);
          sites.push_back(std::move(site));
          continue;
        }
      }
      if (reader && insert) {
        const auto [at, is_new] = inserted.emplace(std::pair(reader->input, &graph), sites.size());
        if (is_new)
          sites.push_back({.readers = {*reader}, .classes = {}});
        else if (sites[at->second].readers[0].axis == reader->axis &&
                 sites[at->second].readers[0].linear.weight->dtype() == reader->linear.weight->dtype())
          sites[at->second].readers.push_back(*reader);
        continue;
      }
      if (near_misses) near_misses->push_back({std::string(pass), node->describe(), reason});
    }
  });
  return sites;
}

std::size_t smooth(const ChannelClasses& channels, const std::vector<SmoothingSite>& sites,
                   const std::vector<std::vector<double>>& scales) {
  std::vector<double> by_class(channels.classes().size(), 1.0);
  std::size_t folded = 0, inserted = 0;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (scales[i].empty() || sites[i].classes.empty()) continue;
    for (std::size_t c = 0; c < scales[i].size(); ++c) by_class[sites[i].classes[c]] = scales[i][c];
    ++folded;
  }
  if (!channels.apply(by_class)) folded = 0;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (scales[i].empty() || !sites[i].classes.empty()) continue;
    std::vector<double> scale = scales[i];
    if (bits(sites[i].readers[0].linear.weight->dtype()) < 32)
      for (double& s : scale) s = nearest_power_of_two(s);
    insert_scale(sites[i], scale);
    ++inserted;
  }
  return folded + inserted;
}

}  // namespace onnxpress
