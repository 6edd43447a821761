#include "tools/gates.h"

#include <doctest/doctest.h>

#include <cmath>

#include "graph/base/error.h"

namespace onnxpress {

namespace {

Measured accuracy(Metric metric, double before, double after) {
  Measured measured;
  measured.metric = metric;
  measured.before = MetricValue{metric, before, before, before};
  measured.after = MetricValue{metric, after, after, after};
  measured.bytes_before = 273121;
  measured.bytes_after = 100000;
  return measured;
}

GateResult drop(Metric metric, double before, double after, double limit) {
  GateLimits limits;
  limits.max_drop = Limit<double>{limit, fmt::format("{}%", limit)};
  return decide_gates(limits, accuracy(metric, before, after)).at(0);
}

}  // namespace

TEST_CASE("a missed drop says by how much, in points") {
  const GateResult gate = drop(Metric::top1, 0.976, 0.564, 0);
  CHECK_FALSE(gate.met);
  CHECK(gate.margin == doctest::Approx(-41.2));
  CHECK(gate.text == "top1 fell by 41.20 points (97.60 % to 56.40 %), 41.20 more than allowed");
}

TEST_CASE("a drop of exactly the limit is met") {
  CHECK(drop(Metric::top1, 0.996, 0.991, 0.5).met);
  CHECK(drop(Metric::top1, 0.976, 0.976, 0).met);
  CHECK_FALSE(drop(Metric::top1, 0.996, 0.989, 0.5).met);
  CHECK(drop(Metric::f1, 0.9, 0.95, 0).met);
}

TEST_CASE("a loss is judged in per cent of the original's") {
  const GateResult gate = drop(Metric::cross_entropy, 0.02, 0.021, 10);
  CHECK(gate.met);
  CHECK(gate.value == doctest::Approx(5));
  CHECK(gate.text == "cross_entropy rose by 5.00 % (0.02 to 0.021), 5.00 to spare");
  CHECK(drop(Metric::mse, 0, 0, 0).met);
  CHECK_FALSE(drop(Metric::mse, 0, 1e-9, 50).met);
}

TEST_CASE("a value that is no number misses its gate") {
  CHECK_FALSE(drop(Metric::cross_entropy, 0.02, std::nan(""), 100).met);
  CHECK_FALSE(drop(Metric::top1, 0.5, std::nan(""), 100).met);
}

TEST_CASE("ratio, size, agreement and latency") {
  GateLimits limits;
  limits.min_ratio = Limit<double>{3, "3"};
  limits.max_size = Limit<std::int64_t>{100000, "100KB"};
  limits.min_agreement = Limit<double>{99, "99%"};
  limits.max_latency_ratio = Limit<double>{1, "1"};
  Measured measured = accuracy(Metric::top1, 1, 1);
  CHECK_THROWS_AS(decide_gates(limits, measured), Error);
  measured.agreement = 0.992;
  measured.latency_ratio = 1.25;
  const std::vector<GateResult> gates = decide_gates(limits, measured);
  REQUIRE(gates.size() == 4);
  CHECK_FALSE(gates[0].met);
  CHECK(gates[0].text == "2.73 times smaller (273,121 to 100,000 bytes), 0.27 short");
  CHECK(gates[1].met);
  CHECK(gates[1].text == "100,000 bytes, 0 to spare");
  CHECK(gates[2].met);
  CHECK(gates[2].text == "top-1 agrees on 99.20 % of the samples, 0.20 to spare");
  CHECK_FALSE(gates[3].met);
  CHECK(gates[3].text == "1.250 times the original's time, 0.250 more than allowed");
}

}  // namespace onnxpress
