// Students derived from a teacher: channels and residual blocks left out.
#include <string>

#include "passes/common/dependency_groups.h"
#include "passes/common/residual_blocks.h"
#include "tests/passes/pass_fixture.h"

namespace onnxpress {
namespace {

std::unique_ptr<Model> model_of(const std::string& body, int opset = 17) {
  return parse_model(fmt::format("model ir=8 opset={}\n{}", opset, body));
}

PassRun derived(const std::string& options, const std::string& body) {
  return run_pass("derive_student{" + options + "}", model_of(body));
}

std::string dims_of(const Model& model, const std::string& name) {
  const Value* value = model.graph.find(name);
  REQUIRE_MESSAGE(value != nullptr, name);
  return to_string(value->constant()->dims());
}

// Zeroes what reads the given channels of the group that goes through `slot_of`, removes them, and
// compares outputs, which must be equal.
void check_zero_channels(const std::string& body, const std::string& slot_of, std::size_t axis,
                         const std::vector<std::size_t>& sets, int opset = 17) {
  CAPTURE(body);
  CAPTURE(slot_of);
  auto model = model_of(body, opset);
  DependencyGroups groups = DependencyGroups::of(*model);
  const auto goes_through = [&](const DependencyGroup& group) {
    return std::ranges::any_of(group.slots, [&](std::size_t slot) {
      return groups.slots()[slot].value->name() == slot_of && groups.slots()[slot].axis == axis;
    });
  };
  const auto found = std::ranges::find_if(groups.groups(), goes_through);
  REQUIRE(found != groups.groups().end());
  CHECK_FALSE(found->is_normalized);
  // Every weight that the channels go through: then nothing reads them, whatever is made of them.
  for (const std::size_t set : sets)
    for (const auto& [slot, element] : found->sets.at(set).members) {
      const AxisSlot& at = groups.slots()[slot];
      const Tensor* tensor = at.value->constant();
      if (tensor == nullptr || tensor->rank() < 2) continue;
      Tensor zeroed = tensor->cast(DType::float32);
      const std::span<const std::int64_t> dims = tensor->dims();
      const std::int64_t inner = element_count(dims.subspan(at.axis + 1));
      const auto values = zeroed.mutable_data<float>();
      for (std::size_t i = 0; i < values.size(); ++i)
        if (static_cast<std::int64_t>(i) / inner % dims[at.axis] == element) values[i] = 0;
      model->graph.set_initializer(at.value, zeroed);
    }
  const auto before = model->clone();
  std::vector<std::vector<std::size_t>> removed(groups.groups().size());
  removed[static_cast<std::size_t>(found - groups.groups().begin())] = sets;
  remove_channels(*model, groups, removed);
  CAPTURE(to_text(*model));
  verify(*model);
  CHECK(parameter_count(*model) < parameter_count(*before));
  const std::vector<std::vector<Tensor>> probes = {probe_inputs(*before, 3), probe_inputs(*before, 4)};
  const ProbeOutputs expected = run_probes(*before, probes, true, 1), outputs = run_probes(*model, probes, true, 1);
  for (std::size_t i = 0; i < expected.size(); ++i)
    for (std::size_t k = 0; k < expected[i].size(); ++k) {
      REQUIRE(to_string(expected[i][k].dims()) == to_string(outputs[i][k].dims()));
      const std::vector<float> a = expected[i][k].to_floats(), b = outputs[i][k].to_floats();
      for (std::size_t e = 0; e < a.size(); ++e) CHECK(b[e] == doctest::Approx(a[e]).epsilon(1e-5));
    }
}

const std::string mlp = R"(input x: float32[n,1,4,2]
initializer w1: float32[6,8] = random(1)
initializer b1: float32[6] = random(2)
initializer w2: float32[6,5] = random(3)
initializer b2: float32[5] = random(4)
f = Flatten(x)
h = Gemm(f, w1, b1) {transB=1}
r = Sigmoid(h)
m = MatMul(r, w2)
y: float32[n,5] = Add(m, b2)
output y: float32[n,5]
)";

const std::string residual_net = R"(input x: float32[n,3,6,6]
initializer w1: float32[8,3,3,3] = random(1)
initializer s: float32[8] = random(2)
initializer b: float32[8] = random(3)
initializer m: float32[8] = random(4)
initializer v: float32[8] = ones
initializer w2: float32[8,8,3,3] = random(5)
initializer w3: float32[8,8,3,3] = random(6)
initializer w4: float32[40,4] = random(7)
initializer w5: float32[2,8,1,1] = random(8)
c1 = Conv(x, w1) {pads=[1,1,1,1]}
n1 = BatchNormalization(c1, s, b, m, v)
r1 = Relu(n1)
c2 = Conv(r1, w2) {pads=[1,1,1,1]}
r2 = Relu(c2)
c3 = Conv(r2, w3) {pads=[1,1,1,1]}
a = Add(c3, r1)
c5 = Conv(a, w5)
j = Concat(a, c5) {axis=1}
p = MaxPool(j) {kernel_shape=[3,3], strides=[3,3]}
f = Flatten(p)
y = MatMul(f, w4)
output y: float32[n,4]
)";

const std::string depthwise_net = R"(input x: float32[n,2,6,6]
initializer w1: float32[6,2,1,1] = random(1)
initializer w2: float32[6,1,3,3] = random(2)
initializer b2: float32[6] = random(3)
initializer w3: float32[6,1,3,3] = random(9)
initializer w4: float32[4,6,1,1] = random(4)
initializer g: float32[8,2,3,3] = random(5)
initializer k: float32[8,3] = random(6)
initializer d: int64[2] = {0,-1}
c1 = Conv(x, w1)
c2 = Conv(c1, w2, b2) {group=6, pads=[1,1,1,1]}
t = ConvTranspose(c2, w3) {group=6, pads=[1,1,1,1]}
c3 = Conv(t, w4)
c4 = Conv(c3, g) {group=2, pads=[1,1,1,1]}
p = GlobalAveragePool(c4)
f = Reshape(p, d)
y = MatMul(f, k)
output y: float32[n,3]
)";

const std::string attention_net = R"(input x: float32[n,5,8]
initializer wq: float32[8,12] = random(1)
initializer wk: float32[8,12] = random(2)
initializer wv: float32[8,12] = random(3)
initializer wo: float32[12,8] = random(4)
initializer bq: float32[12] = random(5)
initializer split: int64[4] = {0,5,3,4}
initializer join: int64[3] = {0,0,12}
initializer scale: float32[] = {0.5}
q0 = MatMul(x, wq)
q1 = Add(q0, bq)
q2 = Reshape(q1, split)
q = Transpose(q2) {perm=[0,2,1,3]}
k0 = MatMul(x, wk)
k2 = Reshape(k0, split)
k = Transpose(k2) {perm=[0,2,3,1]}
v0 = MatMul(x, wv)
v2 = Reshape(v0, split)
v = Transpose(v2) {perm=[0,2,1,3]}
s0 = MatMul(q, k)
s1 = Mul(s0, scale)
s = Softmax(s1) {axis=-1}
c0 = MatMul(s, v)
c1 = Transpose(c0) {perm=[0,2,1,3]}
c2 = Reshape(c1, join)
o = MatMul(c2, wo)
y: float32[n,5,8] = Add(o, x)
output y: float32[n,5,8]
)";

TEST_CASE("channels that nothing reads go without a trace") {
  check_zero_channels(mlp, "w1", 0, {1, 4});
  check_zero_channels(residual_net, "w2", 0, {0, 3, 7});
  check_zero_channels(residual_net, "w1", 0, {2, 5});
  check_zero_channels(residual_net, "w5", 0, {1});
  check_zero_channels(depthwise_net, "w2", 0, {0, 4});
  check_zero_channels(depthwise_net, "g", 0, {1});
  check_zero_channels(attention_net, "wq", 1, {1});
  check_zero_channels(attention_net, "wo", 0, {0, 2});
}

TEST_CASE("channels of a Split and of computed targets") {
  check_zero_channels(R"(input x: float32[n,4,6]
initializer w: float32[6,10] = random(1)
initializer sizes: int64[2] = {6,4}
initializer v: float32[6,3] = random(2)
initializer u: float32[4,3] = random(3)
h = MatMul(x, w)
a, b = Split(h, sizes) {axis=2}
c = MatMul(a, v)
d = MatMul(b, u)
y = Add(c, d)
output y: float32[n,4,3]
)",
                      "v", 0, {0, 5});
  check_zero_channels(R"(input x: float32[n,s,6]
initializer w: float32[6,8] = random(1)
initializer v: float32[8,3] = random(2)
initializer tail: int64[2] = {4,2}
initializer back: int64[3] = {0,0,8}
initializer two: int64[1] = {2}
initializer zero: int64[1] = {0}
h = MatMul(x, w)
shape = Shape(x)
head = Slice(shape, zero, two)
target = Concat(head, tail) {axis=0}
t = Reshape(h, target)
r = Relu(t)
f = Reshape(r, back)
y = MatMul(f, v)
output y: float32[n,s,3]
)",
                      "w", 1, {3});
}

TEST_CASE("a student keeps the channels of the largest norm, and says what stays wide") {
  const PassRun run = derived("width=0.5", residual_net);
  CHECK(dims_of(*run.after, "w1") == "[4,3,3,3]");
  CHECK(dims_of(*run.after, "s") == "[4]");
  CHECK(dims_of(*run.after, "w2") == "[4,4,3,3]");
  CHECK(dims_of(*run.after, "w4") == "[20,4]");
  CHECK(dims_of(*run.after, "w5") == "[1,4,1,1]");
  CHECK(run.outcome.notes == std::vector<std::string>{"'y' stays as wide as it is: 'y' is an output"});
  const PassRun deep = derived("width=0.34", depthwise_net);
  CHECK(dims_of(*deep.after, "w2") == "[2,1,3,3]");
  CHECK(dims_of(*deep.after, "g") == "[4,2,3,3]");
  const PassRun heads = derived("width=0.5", attention_net);
  CHECK(dims_of(*heads.after, "wq") == "[8,8]");  // 2 of 3 heads: 1.5 rounded
  CHECK(dims_of(*heads.after, "wo") == "[8,8]");
  const PassRun selected = derived("width=0.5, select=c2_of", R"(input x: float32[n,2,3,3]
initializer w1: float32[4,2,1,1] = random(1)
initializer w2: float32[4,4,1,1] = random(2)
initializer w3: float32[1,4,1,1] = random(3)
c1 = Conv(x, w1)
c2_of = Conv(c1, w2)
y = Conv(c2_of, w3)
output y: float32[n,1,3,3]
)");
  CHECK(dims_of(*selected.after, "w1") == "[4,2,1,1]");
  CHECK(dims_of(*selected.after, "w2") == "[2,4,1,1]");
}

TEST_CASE("channels of the smallest norm go first") {
  const PassRun run = derived("width=0.5", R"(input x: float32[n,2]
initializer w1: float32[2,4] = {9,1,5,2,9,1,5,2}
initializer w2: float32[4,1] = {1,1,1,1}
h = MatMul(x, w1)
r = Relu(h)
y = MatMul(r, w2)
output y: float32[n,1]
)");
  CHECK(run.after->graph.find("w1")->constant()->to_floats() == std::vector<float>{9, 5, 9, 5});
}

std::string blocks(int count) {
  std::string text = "input x: float32[n,4]\n";
  std::string value = "x";
  for (int i = 0; i < count; ++i) {
    text += fmt::format(
        "initializer w{0}: float32[4,4] = random({0})\nh{0} = MatMul({1}, w{0})\nr{0} = Relu(h{0})\n"
        "a{0} = Add(r{0}, {1})\nz{0} = Relu(a{0})\n",
        i, value);
    value = fmt::format("z{}", i);
  }
  return text + "initializer last: float32[4,2] = random(99)\ny = MatMul(" + value +
         ", last)\noutput y: float32[n,2]\n";
}

TEST_CASE("residual blocks are left out evenly") {
  CHECK(evenly_kept(4, 0.5) == std::vector<std::size_t>{1, 3});
  CHECK(evenly_kept(3, 1.0 / 3) == std::vector<std::size_t>{2});
  CHECK(evenly_kept(5, 0.5) == std::vector<std::size_t>{0, 2, 4});
  CHECK(evenly_kept(0, 0.5).empty());
  const PassRun run = derived("depth=0.5", blocks(4));
  for (const char* name : {"w1", "w3"}) CHECK(run.after->graph.find(name) != nullptr);
  for (const char* name : {"w0", "w2"}) CHECK(run.after->graph.find(name) == nullptr);
  const PassRun one = derived("depth=0.01", blocks(3));
  CHECK(one.after->graph.find("w2") != nullptr);
  CHECK(one.outcome.counts["blocks left out"] == 2);
}

TEST_CASE("attention and feed-forward network of a layer go together") {
  std::string text = "input x: float32[n,4]\n", value = "x";
  for (int i = 0; i < 3; ++i) {
    text += fmt::format(
        "initializer u{0}: float32[4,4] = random({0})\ninitializer v{0}: float32[4,4] = random(5{0})\n"
        "h{0} = MatMul({1}, u{0})\na{0} = Add(h{0}, {1})\ng{0} = MatMul(a{0}, v{0})\nt{0} = Tanh(g{0})\n"
        "b{0} = Add(a{0}, t{0})\n",
        i, value);
    value = fmt::format("b{}", i);
  }
  const PassRun run = derived("depth=0.5", text + "y = Relu(" + value + ")\noutput y: float32[n,4]\n");
  for (const char* name : {"u1", "v1"}) CHECK(run.after->graph.find(name) == nullptr);
  for (const char* name : {"u0", "v0", "u2", "v2"}) CHECK(run.after->graph.find(name) != nullptr);
}

TEST_CASE("blocks are found where dims are computed") {
  // As exporters write attention: rows and samples as one axis, and back by computed dims.
  std::string text = "input x: float32[n,t,4]\ninitializer r: int64[2] = {-1,4}\n", value = "x";
  for (int i = 0; i < 2; ++i) {
    text += fmt::format(
        "initializer u{0}: float32[4,4] = random({0})\ns{0} = Shape({1})\nf{0} = Reshape({1}, r)\nh{0} = MatMul(f{0}, u{0})\n"
        "initializer one{0}: int64[] = {{1}}\nm{0} = Mul(s{0}, one{0})\ng{0} = Reshape(h{0}, m{0})\na{0} = Add({1}, g{0})\n",
        i, value);
    value = fmt::format("a{}", i);
  }
  const PassRun run = derived("depth=0.5", text + "y = Relu(" + value + ")\noutput y: float32[n,t,4]\n");
  CHECK(run.after->graph.find("u0") == nullptr);
  CHECK(run.after->graph.find("u1") != nullptr);
}

TEST_CASE("what cannot be derived is refused with the reason") {
  const auto message = [](const std::string& options, const std::string& body) {
    try {
      derived(options, body);
    } catch (const Error& error) {
      return std::string(error.message());
    }
    return std::string("done");
  };
  CHECK(message("depth=0.5", mlp).starts_with("depth=0.5: expected residual blocks"));
  CHECK(message("width=0.5",
                "input x: float32[n,4]\ninitializer w: float32[4,4] = random(1)\n"
                "y = MatMul(x, w)\noutput y: float32[n,4]\n") ==
        "width=0.5: expected channels that can be left out, found none: 'y': 'y' is an output");
  CHECK_THROWS_AS(derived("", mlp), Error);
}

}  // namespace
}  // namespace onnxpress
