// Distillation in two parts, of the target class and of the others among themselves: Zhao, Cui, Song,
// Qiu and Liang 2022, "Decoupled Knowledge Distillation".
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/compute_type.h"
#include "graph/ops/gradient_tools.h"
#include "graph/ops/training_loss.h"

namespace onnxpress {
namespace {

struct Attrs {
  std::optional<std::int64_t> axis;
  double temperature = 1, target_weight = 1, other_weight = 8;

  static Attrs from(const Node& node) {
    Attrs attrs{.axis = find_int(node, "axis"),
                .temperature = double{get_float(node, "temperature", 1)},
                .target_weight = double{get_float(node, "target_weight", 1)},
                .other_weight = double{get_float(node, "other_weight", 8)}};
    require(attrs.temperature > 0, "attribute 'temperature': expected a number above 0, found {}", attrs.temperature);
    return attrs;
  }
};

// Logits, those of the teacher and labels that fit each other.
struct Operands {
  const Tensor& x;
  Tensor teacher;
  std::vector<std::int64_t> labels;
  ClassLines lines;

  template <class Context>
  static Operands of(const Context& context, const Attrs& attrs) {
    const Tensor& x = context.required_input(0);
    Tensor teacher = context.required_input(1).cast(x.dtype());
    require(teacher.dims() == x.dims(), "expected logits {} of the teacher, found {}", to_string(x.dims()),
            to_string(teacher.dims()));
    const Tensor& labels = context.required_input(2);
    const ClassLines lines = ClassLines::of(x.dims(), labels.dims(), true, attrs.axis);
    require(lines.classes > 1, "expected at least 2 classes, found {}", lines.classes);
    Operands operands{x, std::move(teacher), labels.to_ints(), lines};
    for (const std::int64_t label : operands.labels)
      require(label >= 0 && label < lines.classes, "expected a label from 0 to {}, found {}", lines.classes - 1,
              label);
    return operands;
  }
};

// One line's logits over the temperature, in logarithms of probabilities: of the target class, of
// all others together, and of each of the others among themselves (the target's place is unused).
struct Parts {
  double target = 0, rest = 0;
  std::vector<double> others;

  template <class T>
  void read(const T* x, const ClassLines& lines, std::int64_t label, double temperature) {
    others.resize(static_cast<std::size_t>(lines.classes));
    double largest = -std::numeric_limits<double>::infinity();
    for (std::int64_t k = 0; k < lines.classes; ++k) {
      others[static_cast<std::size_t>(k)] = static_cast<double>(x[k * lines.step]) / temperature;
      if (k != label) largest = std::max(largest, others[static_cast<std::size_t>(k)]);
    }
    double sum = 0;
    for (std::int64_t k = 0; k < lines.classes; ++k)
      if (k != label) sum += std::exp(others[static_cast<std::size_t>(k)] - largest);
    const double log_rest = largest + std::log(sum);
    const double z = others[static_cast<std::size_t>(label)];
    const double both = std::max(z, log_rest) + std::log1p(std::exp(-std::fabs(z - log_rest)));
    target = z - both;
    rest = log_rest - both;
    for (double& other : others) other -= log_rest;
  }
};

constexpr std::int64_t lines_at_a_time = 32;

Kernel prepare_loss(const PrepareContext& plan) {
  return [attrs = Attrs::from(plan.node())](KernelContext& context) {
    run_as(context, float_compute_type, [&](KernelContext& inner) {
      const Operands operands = Operands::of(inner, attrs);
      const ClassLines& lines = operands.lines;
      Tensor& y = inner.output(0, operands.x.dtype(), {});
      dispatch_floats(operands.x.dtype(), [&]<class T>(std::type_identity<T>) {
        const T* const x = operands.x.data<T>().data();
        const T* const t = operands.teacher.data<T>().data();
        const std::int64_t blocks = (lines.lines + lines_at_a_time - 1) / lines_at_a_time;
        std::vector<double> sums(static_cast<std::size_t>(blocks), 0);
        inner.pool().parallel_for(lines.lines, lines_at_a_time, [&](std::int64_t begin, std::int64_t end) {
          Parts student, teacher;
          double sum = 0;
          for (std::int64_t line = begin; line < end; ++line) {
            const std::int64_t label = operands.labels[static_cast<std::size_t>(line)];
            student.read(x + lines.start(line), lines, label, attrs.temperature);
            teacher.read(t + lines.start(line), lines, label, attrs.temperature);
            const double target = std::exp(teacher.target) * (teacher.target - student.target) +
                                  std::exp(teacher.rest) * (teacher.rest - student.rest);
            double others = 0;
            for (std::size_t k = 0; k < teacher.others.size(); ++k)
              if (static_cast<std::int64_t>(k) != label)
                others += std::exp(teacher.others[k]) * (teacher.others[k] - student.others[k]);
            sum += attrs.target_weight * target + attrs.other_weight * others;
          }
          sums[static_cast<std::size_t>(begin / lines_at_a_time)] = sum;
        });
        double total = 0;
        for (const double sum : sums) total += sum;
        y.mutable_data<T>()[0] =
            static_cast<T>(total * attrs.temperature * attrs.temperature / static_cast<double>(lines.lines));
      });
    });
  };
}

// With p the student's and q the teacher's probabilities, and those of the others among themselves
// p^ and q^: dx of the target is T a (p - q); of another class T (b (p^ - q^) - a (p - q) p^), a and b
// being the weights and p - q that of the target.
BackwardKernel prepare_gradient(const PrepareContext& plan) {
  return [attrs = Attrs::from(plan.node())](BackwardContext& context) {
    require(!context.wants_gradient(1), "no gradient goes through the teacher's logits");
    const Operands operands = Operands::of(context, attrs);
    const ClassLines& lines = operands.lines;
    Tensor& dx = context.gradient(0);
    dispatch_floats(operands.x.dtype(), [&]<class T>(std::type_identity<T>) {
      const T* const x = operands.x.data<T>().data();
      const T* const t = operands.teacher.data<T>().data();
      T* const out = dx.mutable_data<T>().data();
      const double factor = static_cast<double>(context.required_gradient(0).data<T>()[0]) * attrs.temperature /
                            static_cast<double>(lines.lines);
      context.pool().parallel_for(lines.lines, lines_at_a_time, [&](std::int64_t begin, std::int64_t end) {
        Parts student, teacher;
        for (std::int64_t line = begin; line < end; ++line) {
          const std::int64_t label = operands.labels[static_cast<std::size_t>(line)];
          student.read(x + lines.start(line), lines, label, attrs.temperature);
          teacher.read(t + lines.start(line), lines, label, attrs.temperature);
          const double gap = attrs.target_weight * (std::exp(student.target) - std::exp(teacher.target));
          T* const to = out + lines.start(line);
          for (std::int64_t k = 0; k < lines.classes; ++k) {
            const auto at = static_cast<std::size_t>(k);
            const double p = std::exp(student.others[at]), q = std::exp(teacher.others[at]);
            const double slope = k == label ? gap : attrs.other_weight * (p - q) - gap * p;
            to[k * lines.step] = static_cast<T>(factor * slope);
          }
        }
      });
    });
  };
}

void infer_scalar(InferContext& context) { context.set_output(0, context.input_dtype(0), Shape{}); }

}  // namespace

OPERATORS(training_decoupled_distillation) {
  registry.add(OpDef{.name = "DecoupledDistillation",
                     .domain = std::string(training_domain),
                     .infer = infer_scalar,
                     .prepare = prepare_loss});
  registry.add(GradientDef{.name = "DecoupledDistillation",
                           .domain = std::string(training_domain),
                           .prepare = prepare_gradient,
                           .reads_inputs = bits_of(0, 1, 2),
                           .reads_outputs = 0});
}

}  // namespace onnxpress
