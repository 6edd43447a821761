#include "passes/fuse/attention.h"

#include "graph/ops/softmax.h"
#include "graph/ops/transpose.h"

namespace onnxpress {
namespace {

using Permutation = std::vector<std::int64_t>;

class AttentionFinder {
 public:
  AttentionFinder(const Tracer& tracer, std::string& reason) : tracer_(tracer), reason_(reason) {}

  std::optional<WrittenAttention> run(Node* softmax) {
    const auto scores = tracer_.rank(softmax->input(0));
    const auto product = tracer_.only_reader(softmax, {"MatMul"});
    if (!product || product->index != 0 || !scores || *scores != 4) return std::nullopt;
    if (normalize_axis(SoftmaxAttrs::from(*softmax).axis, 4) != 3) return std::nullopt;
    found_.region.nodes = {softmax, product->node};
    Node* const dots = scored(softmax->input(0));
    if (dots == nullptr) return std::nullopt;
    const auto query = heads_of(dots->input(0), {0, 2, 1, 3}, found_.scale);
    const auto key = query ? heads_of(dots->input(1), {0, 2, 3, 1}, found_.scale) : std::nullopt;
    double one = 1;
    const auto value = key ? heads_of(product->node->input(1), {0, 2, 1, 3}, one) : std::nullopt;
    if (!value || one != 1) return std::nullopt;
    if (!joined(product->node, *query, *value)) return std::nullopt;
    const Shape& q = *tracer_.shape(query->rows);
    const Shape& k = *tracer_.shape(key->rows);
    const Shape& v = *tracer_.shape(value->rows);
    if (query->heads != key->heads || key->heads != value->heads || query->width != key->width ||
        !same_dim(q[0], k[0]) || !same_dim(k[0], v[0]) || !same_dim(k[1], v[1]))
      return refuse("queries, keys and values are not known to fit each other");
    found_.query = query->rows;
    found_.key = key->rows;
    found_.value = value->rows;
    found_.heads = query->heads;
    if (const auto obstacle = tracer_.obstacle(found_.region)) return refuse(*obstacle);
    return found_;
  }

 private:
  struct Heads {
    Value* rows = nullptr;
    std::int64_t heads = 0, width = 0;
  };

  std::nullopt_t refuse(std::string reason) {
    reason_ = std::move(reason);
    return std::nullopt;
  }

  // The product below the mask and the scale.
  Node* scored(Value* value) {
    if (Node* const sum = tracer_.maker(value, {"Add"})) {
      for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
        Value* const mask = sum->input(1 - position);
        if (mask == nullptr) continue;
        const std::size_t before = found_.region.nodes.size();
        found_.region.nodes.push_back(sum);
        if (Node* const product = scaled_product(sum->input(position))) {
          found_.mask = mask;
          return product;
        }
        found_.region.nodes.resize(before);
        found_.scale = 1;
      }
      return nullptr;
    }
    return scaled_product(value);
  }

  Node* scaled_product(Value* value) {
    for (;;) {
      if (Node* const product = tracer_.maker(value, {"MatMul"})) {
        found_.region.nodes.push_back(product);
        return product;
      }
      Value* const below = unscaled(value, found_.scale);
      if (below == nullptr) return nullptr;
      value = below;
    }
  }

  // What the value is a multiple of.
  Value* unscaled(const Value* value, double& scale) {
    Node* const node = tracer_.maker(value, {"Mul", "Div"});
    if (node == nullptr) return nullptr;
    for (const std::size_t position : {std::size_t{0}, std::size_t{1}}) {
      if (node->is("Div") && position == 1) break;
      const auto number = tracer_.factor(node->input(1 - position), node->input(position));
      if (!number || *number == 0) continue;
      scale *= node->is("Div") ? 1 / *number : *number;
      found_.region.nodes.push_back(node);
      return node->input(position);
    }
    return nullptr;
  }

  // Rows cut into heads by a Reshape and transposed by `wanted`, in one step or several.
  std::optional<Heads> heads_of(Value* value, const Permutation& wanted, double& scale) {
    Permutation permutation{0, 1, 2, 3};
    for (;;) {
      if (Node* const transpose = tracer_.maker(value, {"Transpose"})) {
        if (tracer_.rank(transpose->input(0)) != 4) return std::nullopt;
        const Permutation step = transpose_permutation(*transpose, 4);
        for (std::int64_t& axis : permutation) axis = step[static_cast<std::size_t>(axis)];
        found_.region.nodes.push_back(transpose);
        value = transpose->input(0);
      } else if (Value* const below = unscaled(value, scale)) {
        value = below;
      } else {
        break;
      }
    }
    Node* const reshape = tracer_.maker(value, {"Reshape"});
    if (reshape == nullptr || permutation != wanted) return std::nullopt;
    const auto heads = cut(reshape->input(0), value);
    if (!heads)
      return refuse(
          fmt::format("{} is not known to cut the last axis into heads", reshape->describe()));
    found_.region.nodes.push_back(reshape);
    tracer_.absorb_dims(found_.region, reshape->input(1));
    return heads;
  }

  // Whether `heads` [batch, length, heads, width] is `rows` [batch, length, heads * width].
  std::optional<Heads> cut(Value* rows, const Value* heads) const {
    const Shape* const whole = tracer_.shape(rows);
    const Shape* const parts = tracer_.shape(heads);
    if (whole == nullptr || parts == nullptr || whole->size() != 3 || parts->size() != 4)
      return std::nullopt;
    const Dim& count = (*parts)[2];
    const Dim& width = (*parts)[3];
    if (!count.is_known() || !width.is_known() || !same_dim((*whole)[0], (*parts)[0]) ||
        !same_dim((*whole)[1], (*parts)[1]) || (*whole)[2].value() != count.value() * width.value())
      return std::nullopt;
    return Heads{rows, count.value(), width.value()};
  }

  // The heads of the result transposed back and joined.
  bool joined(Node* product, const Heads& query, const Heads& value) {
    const auto transpose = tracer_.only_reader(product, {"Transpose"});
    if (!transpose || transpose_permutation(*transpose->node, 4) != Permutation{0, 2, 1, 3})
      return false;
    Node* reshape = nullptr;  // others that read its operand may compute its dims
    for (const Use& use : transpose->node->output()->uses())
      if (use.index == 0 && tracer_.maker(use.node->output(), {"Reshape"}) != nullptr)
        reshape = use.node;
    if (reshape == nullptr) return false;
    found_.region.nodes.insert(found_.region.nodes.end(), {transpose->node, reshape});
    found_.region.last = reshape;
    tracer_.absorb_dims(found_.region, reshape->input(1));
    const Shape* const rows = tracer_.shape(reshape->output());
    const Shape& q = *tracer_.shape(query.rows);
    const bool fits = rows != nullptr && rows->size() == 3 && same_dim((*rows)[0], q[0]) &&
                      same_dim((*rows)[1], q[1]) && (*rows)[2].value() == value.heads * value.width;
    if (!fits) reason_ = fmt::format("{} is not known to join the heads", reshape->describe());
    return fits;
  }

  const Tracer& tracer_;
  std::string& reason_;
  WrittenAttention found_;
};

}  // namespace

std::optional<WrittenAttention> find_attention(const Tracer& tracer, Node* softmax,
                                               std::string& reason) {
  return AttentionFinder(tracer, reason).run(softmax);
}

}  // namespace onnxpress
