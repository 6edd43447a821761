// NonMaxSuppression: greedy choice of boxes that overlap little.
#include <algorithm>
#include <cmath>

#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

struct Box {
  float low[2], high[2];

  // Two opposite corners [y1, x1, y2, x2], or [x_center, y_center, width, height].
  static Box from(const float* box, bool center_point) {
    Box result;
    for (std::size_t i = 0; i < 2; ++i) {
      const float a = box[i];
      const float b = box[i + 2];
      result.low[i] = center_point ? a - b / 2 : std::min(a, b);
      result.high[i] = center_point ? a + b / 2 : std::max(a, b);
    }
    return result;
  }

  float area() const { return (high[0] - low[0]) * (high[1] - low[1]); }
};

// Intersection over union above `threshold`; never for boxes without area.
bool overlaps(const Box& a, const Box& b, float threshold) {
  float common = 1;
  for (std::size_t i = 0; i < 2; ++i) {
    const float length = std::min(a.high[i], b.high[i]) - std::max(a.low[i], b.low[i]);
    if (!(length > 0)) return false;
    common *= length;
  }
  const float area_a = a.area();
  const float area_b = b.area();
  const float all = area_a + area_b - common;
  if (!(common > 0 && area_a > 0 && area_b > 0 && all > 0)) return false;
  return common / all > threshold;
}

struct Limits {
  std::int64_t most = 0;
  float overlap = 0;
  std::optional<float> score;
};

// Chosen boxes of one class, best first; of equal scores the earlier box.
std::vector<std::int64_t> choose(const std::vector<Box>& boxes, const float* scores,
                                 const Limits& limits) {
  std::vector<std::int64_t> candidates;
  for (std::size_t i = 0; i < boxes.size(); ++i)
    if (limits.score ? scores[i] > *limits.score : !std::isnan(scores[i]))
      candidates.push_back(static_cast<std::int64_t>(i));
  std::ranges::stable_sort(candidates,
                           [&](std::int64_t a, std::int64_t b) { return scores[a] > scores[b]; });
  std::vector<std::int64_t> chosen;
  for (const std::int64_t candidate : candidates) {
    if (static_cast<std::int64_t>(chosen.size()) >= limits.most) break;
    const Box& box = boxes[static_cast<std::size_t>(candidate)];
    const bool covered = std::ranges::any_of(chosen, [&](std::int64_t other) {
      return overlaps(box, boxes[static_cast<std::size_t>(other)], limits.overlap);
    });
    if (!covered) chosen.push_back(candidate);
  }
  return chosen;
}

// The one element of an optional input.
std::optional<Tensor> scalar_input(const KernelContext& context, std::size_t index) {
  const Tensor* given = context.input(index);
  if (given == nullptr || given->size() == 0) return std::nullopt;
  require(given->size() == 1, "expected one number as input {}, found {}", index,
          to_string(given->dims()));
  return *given;
}

Kernel prepare_non_max_suppression(const PrepareContext& prepare) {
  return [center_point =
              get_bool(prepare.node(), "center_point_box", false)](KernelContext& context) {
    const Tensor& boxes = context.required_input(0);
    const Tensor& scores = context.required_input(1);
    require(boxes.rank() == 3 && scores.rank() == 3 && boxes.dim(2) == 4 &&
                boxes.dim(0) == scores.dim(0) && boxes.dim(1) == scores.dim(2),
            "expected boxes [batch,n,4] and scores [batch,classes,n], found {} and {}",
            to_string(boxes.dims()), to_string(scores.dims()));
    Limits limits;
    if (const auto most = scalar_input(context, 2)) limits.most = most->to_ints()[0];
    if (const auto overlap = scalar_input(context, 3)) limits.overlap = overlap->to_floats()[0];
    if (const auto score = scalar_input(context, 4)) limits.score = score->to_floats()[0];
    require(limits.overlap >= 0 && limits.overlap <= 1,
            "expected an overlap threshold from 0 to 1, found {}", limits.overlap);
    const std::int64_t images = boxes.dim(0);
    const std::int64_t count = boxes.dim(1);
    const std::int64_t classes = scores.dim(1);
    const float* corners = boxes.data<float>().data();
    const float* weights = scores.data<float>().data();
    std::vector<std::vector<std::int64_t>> chosen(
        count == 0 || limits.most <= 0 ? 0 : static_cast<std::size_t>(images * classes));
    std::vector<std::vector<Box>> by_image(chosen.empty() ? 0 : static_cast<std::size_t>(images));
    for (std::size_t image = 0; image < by_image.size(); ++image)
      for (std::int64_t i = 0; i < count; ++i, corners += 4)
        by_image[image].push_back(Box::from(corners, center_point));
    context.pool().parallel_for(
        static_cast<std::int64_t>(chosen.size()), 1, [&](std::int64_t task, std::int64_t) {
          chosen[static_cast<std::size_t>(task)] = choose(
              by_image[static_cast<std::size_t>(task / classes)], weights + task * count, limits);
        });
    std::vector<std::int64_t> rows;
    for (std::size_t task = 0; task < chosen.size(); ++task)
      for (const std::int64_t box : chosen[task]) {
        const auto at = static_cast<std::int64_t>(task);
        rows.insert(rows.end(), {at / classes, at % classes, box});
      }
    Tensor& y = context.output(0, DType::int64, {static_cast<std::int64_t>(rows.size()) / 3, 3});
    std::ranges::copy(rows, y.mutable_data<std::int64_t>().begin());
  };
}

void infer_non_max_suppression(InferContext& context) {
  const Shape* boxes = context.input_shape(0);
  const Shape* scores = context.input_shape(1);
  for (const Shape* shape : {boxes, scores})
    require(shape == nullptr || shape->size() == 3, "expected boxes and scores of 3 axes, found {}",
            shape == nullptr ? "?" : to_string(*shape));
  if (boxes != nullptr && scores != nullptr) {
    unify((*boxes)[0], (*scores)[0], "the batch axis of boxes and scores");
    unify((*boxes)[1], (*scores)[2], "the number of boxes and scores");
  }
  context.set_output(0, DType::int64, Shape{Dim(), 3});
}

}  // namespace

OPERATORS(non_max_suppression) {
  registry.add(OpDef{.name = "NonMaxSuppression",
                     .since = 10,
                     .infer = infer_non_max_suppression,
                     .prepare = prepare_non_max_suppression});
}

}  // namespace onnxpress
