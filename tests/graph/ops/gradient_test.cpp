// Every gradient row against central differences in float64.
#include <map>
#include <set>

#include "graph/base/random.h"
#include "graph/ops/gradient.h"
#include "tests/graph/ops/gradient_cases.h"
#include "tests/graph/ops/kernel_fixture.h"

namespace onnxpress {
namespace {

std::vector<GradientCase> all_cases() {
  std::vector<GradientCase> cases;
  for (const auto& family :
       {unary_gradient_cases(), arithmetic_gradient_cases(), neural_gradient_cases(),
        movement_gradient_cases(), reduce_gradient_cases(), recurrent_gradient_cases(),
        loss_gradient_cases()})
    cases.insert(cases.end(), family.begin(), family.end());
  return cases;
}

// The node of a case with numbers in the case's range for its float64 inputs.
class Trial {
 public:
  explicit Trial(const GradientCase& of)
      : model_(parse_model(
            fmt::format("model ir=10 opset={} com.microsoft=1 onnxpress.training=1\n{}", of.opset, of.body))),
        node_(*model_->graph.nodes().back()),
        op_(operators().find(node_)) {
    REQUIRE_MESSAGE(op_ != nullptr, node_.describe());
    Random random(7);
    for (const Value* input : node_.inputs()) {
      inputs_.push_back(input != nullptr ? *input->constant() : Tensor());
      Tensor& tensor = inputs_.back();
      const bool is_float = tensor.defined() && tensor.dtype() == DType::float64;
      wanted_.push_back(is_float && !input->name().starts_with("k_"));
      if (is_float)
        for (double& value : tensor.mutable_data<double>()) value = random.uniform(of.low, of.high);
    }
    outputs_ = evaluate(*op_, node_, pointers(inputs_), pool_);
    for (const Tensor& output : outputs_) {
      weights_.emplace_back();
      if (!output.defined() || output.dtype() != DType::float64) continue;
      weights_.back() = Tensor(DType::float64, output.dims());
      for (double& weight : weights_.back().mutable_data<double>()) weight = random.uniform(-1, 1);
    }
  }

  const Node& node() const { return node_; }
  const std::vector<bool>& wanted() const { return wanted_; }
  std::vector<Tensor>& inputs() { return inputs_; }

  // The sum of the float64 outputs times fixed weights.
  double loss() {
    const std::vector<Tensor> outputs = evaluate(*op_, node_, pointers(inputs_), pool_);
    double sum = 0;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!weights_[i].defined()) continue;
      const auto values = outputs[i].data<double>();
      for (std::size_t k = 0; k < values.size(); ++k) sum += values[k] * weights_[i].data<double>()[k];
    }
    return sum;
  }

  std::vector<Tensor> gradients(const GradientDef& row, const std::vector<bool>& wanted,
                                ThreadPool& pool) const {
    return differentiate(row, node_, pointers(inputs_), pointers(outputs_), pointers(weights_),
                         wanted, pool);
  }

  // The same, everything of type `type`.
  std::vector<Tensor> gradients_as(const GradientDef& row, DType type) {
    const auto converted = [&](const std::vector<Tensor>& tensors) {
      std::vector<Tensor> result;
      for (const Tensor& tensor : tensors)
        result.push_back(tensor.defined() && tensor.dtype() == DType::float64 ? tensor.cast(type)
                                                                               : tensor);
      return result;
    };
    const std::vector<Tensor> inputs = converted(inputs_), weights = converted(weights_);
    const std::vector<Tensor> outputs = converted(outputs_);
    return differentiate(row, node_, pointers(inputs), pointers(outputs), pointers(weights), wanted_,
                         pool_);
  }

 private:
  static std::vector<const Tensor*> pointers(const std::vector<Tensor>& tensors) {
    std::vector<const Tensor*> result;
    for (const Tensor& tensor : tensors) result.push_back(tensor.defined() ? &tensor : nullptr);
    return result;
  }

  std::unique_ptr<Model> model_;
  const Node& node_;
  const OpDef* op_;
  std::vector<Tensor> inputs_, outputs_, weights_;
  std::vector<bool> wanted_;
  ThreadPool pool_{1};
};

const GradientDef& plain_row(const Node& node) {
  const std::vector<const GradientDef*> rows = operators().gradients(node);
  REQUIRE_MESSAGE(!rows.empty(), node.describe());
  REQUIRE_MESSAGE(rows.back()->backend == "reference", node.describe());
  return *rows.back();
}

void check_differences(Trial& trial, std::size_t index, const Tensor& found) {
  REQUIRE(found.defined());
  Tensor& x = trial.inputs()[index];
  REQUIRE(to_string(found.dims()) == to_string(x.dims()));
  for (std::size_t i = 0; i < static_cast<std::size_t>(x.size()); ++i) {
    const double before = x.data<double>()[i];
    const double step = 1e-5;
    x.mutable_data<double>()[i] = before + step;
    const double above = trial.loss();
    x.mutable_data<double>()[i] = before - step;
    const double below = trial.loss();
    x.mutable_data<double>()[i] = before;
    const double expected = (above - below) / (2 * step);
    const double actual = found.data<double>()[i];
    CHECK_MESSAGE(std::abs(actual - expected) <= 2e-6 * std::max(1.0, std::abs(expected)),
                  "input ", index, " element ", i, ": expected ", expected, ", found ", actual);
  }
}

TEST_CASE("gradients match finite differences") {
  ThreadPool serial(1), parallel(3);
  for (const GradientCase& of : all_cases()) {
    CAPTURE(of.body);
    Trial trial(of);
    const GradientDef& row = plain_row(trial.node());
    const std::vector<Tensor> found = trial.gradients(row, trial.wanted(), serial);
    const std::vector<Tensor> again = trial.gradients(row, trial.wanted(), parallel);
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (!trial.wanted()[i]) continue;
      check_differences(trial, i, found[i]);
      CHECK(found[i].equals(again[i]));
      // Alone it reads less, and gives the same.
      std::vector<bool> only(found.size(), false);
      only[i] = true;
      CHECK(trial.gradients(row, only, serial)[i].equals(found[i]));
    }
  }
}

TEST_CASE("gradients in float32 and float16 are those of float64") {
  ThreadPool pool(1);
  for (const GradientCase& of : all_cases()) {
    CAPTURE(of.body);
    Trial trial(of);
    const GradientDef& row = plain_row(trial.node());
    const std::vector<Tensor> wide = trial.gradients(row, trial.wanted(), pool);
    for (const DType type : {DType::float32, DType::float16}) {
      const std::vector<Tensor> narrow = trial.gradients_as(row, type);
      const double tolerance = type == DType::float32 ? 1e-4 : 0.2;
      for (std::size_t i = 0; i < wide.size(); ++i) {
        if (!trial.wanted()[i]) continue;
        REQUIRE(narrow[i].dtype() == type);
        const Tensor values = narrow[i].cast(DType::float64);
        double largest = 1;
        for (const double value : wide[i].data<double>()) largest = std::max(largest, std::abs(value));
        int wrong = 0;
        for (std::size_t k = 0; k < values.data<double>().size(); ++k)
          wrong += !(std::abs(values.data<double>()[k] - wide[i].data<double>()[k]) <=
                     tolerance * largest);
        CHECK_MESSAGE(wrong == 0, "input ", i, " as ", name(type));
      }
    }
  }
}

TEST_CASE("every operator with a gradient has a case") {
  std::set<std::pair<std::string, std::string>> tried;
  for (const GradientCase& of : all_cases()) {
    const auto model =
        parse_model(fmt::format("model ir=10 opset={} com.microsoft=1 onnxpress.training=1\n{}", of.opset, of.body));
    const Node& node = *model->graph.nodes().back();
    tried.emplace(node.domain(), node.op_type());
  }
  // Straight through: no derivative of what they compute. gradient_quantize_test.cpp has them.
  for (const char* domain : {"", "com.microsoft"})
    for (const char* op : {"QuantizeLinear", "DequantizeLinear"}) tried.emplace(domain, op);
  tried.emplace("onnxpress.training", "FakeQuantize");  // fake_quantize_test.cpp
  for (const GradientDef* row : operators().all_gradients())
    CHECK_MESSAGE(tried.contains({row->domain, row->name}), row->domain, " ", row->name);
}

}  // namespace
}  // namespace onnxpress
