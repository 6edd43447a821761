#include "tools/profile.h"

#include <algorithm>
#include <map>
#include <span>
#include <string_view>

namespace onnxpress {

namespace {

constexpr std::size_t listed_nodes = 20;
// What the engine calls a step that only brings an operator's input into another memory layout.
constexpr std::string_view layout_backend = "layout";

struct Total {
  std::int64_t calls = 0, macs = 0;
  double micros = 0;
};

// Two operations a multiply-accumulate, in 10^9 a second.
Json gflops(const Total& total) {
  if (total.macs == 0 || total.micros <= 0) return {};
  return 2e-3 * static_cast<double>(total.macs) / total.micros;
}

Json row(const Total& total, double all_micros) {
  return {{"calls", total.calls},
          {"seconds", total.micros * 1e-6},
          {"share", all_micros > 0 ? total.micros / all_micros : 0.0},
          {"macs", total.macs},
          {"gflops", gflops(total)}};
}

Json merged(Json first, const Json& second) {
  first.update(second);
  return first;
}

// Indices of `totals`, those with most time first.
std::vector<std::size_t> slowest_first(const std::vector<Total>& totals) {
  std::vector<std::size_t> order(totals.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return totals[a].micros > totals[b].micros; });
  return order;
}

}  // namespace

std::size_t Profile::index_of(const StepTiming& timing) {
  const Node node{
      .name = std::string(timing.node_name),
      .op_type = timing.backend == layout_backend ? "(layout change)" : std::string(timing.op_type),
      .backend = std::string(timing.backend)};
  // Runs repeat the same steps: the node after the last one is almost always the right one.
  if (!steps_.empty() && !nodes_.empty()) {
    const std::size_t next = (steps_.back().node + 1) % nodes_.size();
    if (nodes_[next] == node) return next;
  }
  const auto known = std::ranges::find(nodes_, node);
  if (known != nodes_.end()) return static_cast<std::size_t>(known - nodes_.begin());
  nodes_.push_back(node);
  return nodes_.size() - 1;
}

void Profile::add(const StepTiming& timing) {
  Step step{.node = index_of(timing),
            .start_us = timing.start_us,
            .duration_us = timing.duration_us,
            .own_us = timing.duration_us,
            .macs = timing.macs};
  // Steps of a subgraph are told before the step that runs it, which began before them.
  for (std::size_t i = steps_.size(); i-- > 0 && steps_[i].start_us >= step.start_us;)
    step.own_us -= steps_[i].own_us;
  step.own_us = std::max(step.own_us, 0.0);
  steps_.push_back(step);
}

Json Profile::section() const {
  std::vector<Total> by_node(nodes_.size());
  double all = 0;
  for (const Step& step : steps_) {
    Total& total = by_node[step.node];
    ++total.calls;
    total.macs += step.macs;
    total.micros += step.own_us;
    all += step.own_us;
  }
  std::map<std::string, Total> by_operator;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    Total& total = by_operator[nodes_[i].op_type];
    total.calls += by_node[i].calls;
    total.macs += by_node[i].macs;
    total.micros += by_node[i].micros;
  }
  std::vector<std::string> names;
  std::vector<Total> totals;
  for (const auto& [name, total] : by_operator) {
    names.push_back(name);
    totals.push_back(total);
  }
  Json operators = Json::array(), nodes = Json::array();
  for (const std::size_t i : slowest_first(totals))
    operators.push_back(merged({{"operator", names[i]}}, row(totals[i], all)));
  for (const std::size_t i : slowest_first(by_node)) {
    if (nodes.size() == listed_nodes) break;
    nodes.push_back(merged(
        {{"node", nodes_[i].name}, {"operator", nodes_[i].op_type}, {"backend", nodes_[i].backend}},
        row(by_node[i], all)));
  }
  return {{"seconds", all * 1e-6},
          {"steps", steps_.size()},
          {"operators", std::move(operators)},
          {"nodes", std::move(nodes)}};
}

void Profile::write_trace(StagedFiles::Sink& sink) const {
  const auto write = [&](const std::string& text) { sink.write(std::as_bytes(std::span(text))); };
  write("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    const Node& node = nodes_[step.node];
    const Json event = {
        {"name", node.name.empty() ? node.op_type : node.name},
        {"cat", node.op_type},
        {"ph", "X"},
        {"ts", step.start_us},
        {"dur", step.duration_us},
        {"pid", 1},
        {"tid", 1},
        {"args", {{"operator", node.op_type}, {"backend", node.backend}, {"macs", step.macs}}}};
    write(event.dump(-1, ' ', false, Json::error_handler_t::replace) +
          (i + 1 < steps_.size() ? ",\n" : "\n"));
  }
  write("]}\n");
}

}  // namespace onnxpress
