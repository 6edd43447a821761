// Gradients of Scatter, ScatterElements and ScatterND with every reduction, and of TopK.
#include <algorithm>
#include <memory>
#include <vector>

#include "graph/ops/attributes.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/gradient_tools.h"

namespace onnxpress {
namespace {

// Numbers of the data's elements that the updates go to: gathered, with the same indices, from the
// numbers of all.
class Places {
 public:
  explicit Places(const Node& scatter) : opsets_{{"", 18}}, graph_(&opsets_) {
    const bool tuples = scatter.is("ScatterND");
    Value* numbers = graph_.add_input("numbers", Type::tensor(DType::int64));
    Value* indices = graph_.add_input("indices", Type::tensor(DType::int64));
    NodeSpec spec{.op_type = tuples ? "GatherND" : "GatherElements", .inputs = {numbers, indices}};
    if (!tuples) spec.attributes["axis"] = get_int(scatter, "axis", 0);
    node_ = graph_.add_node(std::move(spec));
  }

  std::vector<std::int64_t> of(const Dims& data, const Tensor& indices, ThreadPool& pool) const {
    Tensor numbers = Tensor::uninitialized(DType::int64, data);
    std::int64_t next = 0;
    for (std::int64_t& number : numbers.mutable_data<std::int64_t>()) number = next++;
    const Tensor wide = indices.cast(DType::int64);
    const Tensor* inputs[] = {&numbers, &wide};
    return evaluate(*operators().find(*node_), *node_, inputs, pool).front().to_ints();
  }

 private:
  OpsetImports opsets_;
  Graph graph_;
  Node* node_ = nullptr;
};

struct Scatter {
  BackwardContext& context;
  std::vector<std::int64_t> places;  // by update, in their order

  // The last update of an element wins.
  template <class T>
  void overwrite(const T* g, T* data, T* updates) const {
    const std::int64_t size = element_count(context.input_dims(0));
    std::vector<std::int64_t> winner(static_cast<std::size_t>(size), -1);
    for (std::size_t i = 0; i < places.size(); ++i)
      winner[static_cast<std::size_t>(places[i])] = static_cast<std::int64_t>(i);
    if (data != nullptr)
      for (std::int64_t i = 0; i < size; ++i)
        data[i] = winner[static_cast<std::size_t>(i)] < 0 ? g[i] : T(0);
    if (updates != nullptr)
      for (std::size_t i = 0; i < places.size(); ++i)
        updates[i] = winner[static_cast<std::size_t>(places[i])] == static_cast<std::int64_t>(i)
                         ? g[places[i]]
                         : T(0);
  }

  template <class T>
  void add(const T* g, T* data, T* updates) const {
    if (data != nullptr) std::copy_n(g, element_count(context.input_dims(0)), data);
    if (updates != nullptr)
      for (std::size_t i = 0; i < places.size(); ++i) updates[i] = g[places[i]];
  }

  // Each factor gets the product of the others, also where some are 0.
  template <class T>
  void multiply(const T* g, T* data, T* updates) const {
    const auto x = context.required_input(0).data<T>();
    const auto u = context.required_input(2).data<T>();
    std::vector<T> product(x.size(), T(1));  // of the factors that are not 0
    std::vector<int> zeros(x.size(), 0);
    const auto take = [&](std::size_t at, T factor) {
      if (factor == 0)
        ++zeros[at];
      else
        product[at] *= factor;
    };
    for (std::size_t i = 0; i < x.size(); ++i) take(i, x[i]);
    for (std::size_t i = 0; i < places.size(); ++i) take(static_cast<std::size_t>(places[i]), u[i]);
    const auto others = [&](std::size_t at, T factor) {
      if (zeros[at] > (factor == 0 ? 1 : 0)) return T(0);
      return factor == 0 ? product[at] : product[at] / factor;
    };
    if (data != nullptr)
      for (std::size_t i = 0; i < x.size(); ++i) data[i] = g[i] * others(i, x[i]);
    if (updates != nullptr)
      for (std::size_t i = 0; i < places.size(); ++i)
        updates[i] = g[places[i]] * others(static_cast<std::size_t>(places[i]), u[i]);
  }

  // Equal extremes share the gradient.
  template <class T>
  void extreme(const T* g, T* data, T* updates) const {
    const auto x = context.required_input(0).data<T>();
    const auto u = context.required_input(2).data<T>();
    const auto y = context.required_output(0).data<T>();
    std::vector<int> holders(x.size(), 0);
    for (std::size_t i = 0; i < x.size(); ++i) holders[i] += x[i] == y[i];
    for (std::size_t i = 0; i < places.size(); ++i) {
      const auto at = static_cast<std::size_t>(places[i]);
      holders[at] += u[i] == y[at];
    }
    const auto share = [&](std::size_t at, T value) {
      return value == y[at] ? g[at] / static_cast<T>(holders[at]) : T(0);
    };
    if (data != nullptr)
      for (std::size_t i = 0; i < x.size(); ++i) data[i] = share(i, x[i]);
    if (updates != nullptr)
      for (std::size_t i = 0; i < places.size(); ++i)
        updates[i] = share(static_cast<std::size_t>(places[i]), u[i]);
  }
};

BackwardKernel prepare_scatter(const PrepareContext& plan) {
  return [places = std::make_shared<const Places>(plan.node()),
          reduction = get_string(plan.node(), "reduction", "none")](BackwardContext& context) {
    const Scatter scatter{
        context, places->of(context.input_dims(0), context.required_input(1), context.pool())};
    const Tensor& dy = context.required_gradient(0);
    dispatch_floats(dy.dtype(), [&]<class T>(std::type_identity<T>) {
      const auto wanted = [&](std::size_t index) {
        return context.wants_gradient(index) ? context.gradient(index).mutable_data<T>().data()
                                             : nullptr;
      };
      const T* const g = dy.data<T>().data();
      T* const data = wanted(0);
      T* const updates = wanted(2);
      if (reduction == "none")
        scatter.overwrite(g, data, updates);
      else if (reduction == "add")
        scatter.add(g, data, updates);
      else if (reduction == "mul")
        scatter.multiply(g, data, updates);
      else
        scatter.extreme(g, data, updates);
    });
  };
}

// The elements that were chosen, by their indices along the axis.
BackwardKernel prepare_top_k(const PrepareContext& plan) {
  return [given = get_int(plan.node(), "axis", -1)](BackwardContext& context) {
    const Tensor& dy = context.required_gradient(0);
    const Tensor& chosen = context.required_output(1);
    Tensor& dx = context.gradient(0);
    const auto axis = static_cast<std::size_t>(normalize_axis(given, dx.rank()));
    const std::int64_t inner = element_count(std::span(dx.dims()).subspan(axis + 1));
    const std::int64_t size = dx.dim(axis), k = dy.dim(axis);
    dispatch_floats(dx.dtype(), [&]<class T>(std::type_identity<T>) {
      const auto g = dy.data<T>();
      const auto index = chosen.data<std::int64_t>();
      const auto out = dx.mutable_data<T>();
      std::ranges::fill(out, T(0));
      for (std::size_t i = 0; i < g.size(); ++i) {
        const auto at = static_cast<std::int64_t>(i);
        const std::int64_t row = at / inner / k;
        out[static_cast<std::size_t>((row * size + index[i]) * inner + at % inner)] += g[i];
      }
    });
  };
}

}  // namespace

OPERATORS(scatter_gradient) {
  for (const char* op : {"Scatter", "ScatterElements", "ScatterND"})
    registry.add(GradientDef{.name = op, .prepare = prepare_scatter});
  registry.add(GradientDef{.name = "TopK",
                           .prepare = prepare_top_k,
                           .reads_inputs = 0,
                           .reads_outputs = bits_of(1)});
}

}  // namespace onnxpress
