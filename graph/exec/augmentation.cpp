#include "graph/exec/augmentation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "graph/base/random.h"
#include "graph/exec/normal_table.h"
#include "graph/ops/dispatch.h"

namespace onnxpress {
namespace {

using Border = AugmentationOptions::Border;

// What is drawn for a sample; the order of draws is fixed, whatever is asked for.
struct Draw {
  bool mirrored = false, upside_down = false;
  double angle = 0;  // radians, counter-clockwise
  std::int64_t down = 0, right = 0;
  std::uint64_t noise = 0;
  Random rest;

  Draw(const AugmentationOptions& options, Random random) : rest(0) {
    const auto within = [&](std::int64_t most) {
      const std::uint64_t drawn = random.below(static_cast<std::uint64_t>(2 * most + 1));
      return static_cast<std::int64_t>(drawn) - most;
    };
    const bool heads = random.below(2) == 1, tails = random.below(2) == 1;
    mirrored = options.flip_horizontal && heads;
    upside_down = options.flip_vertical && tails;
    angle = random.uniform(-1, 1) * options.rotate * std::numbers::pi / 180;
    down = within(options.shift);
    right = within(options.shift);
    down += within(options.crop);
    right += within(options.crop);
    noise = random.next();
    rest = random;
  }
};

// A coordinate of the source for one that may lie outside; -1: the fill value.
std::int64_t inside(std::int64_t at, std::int64_t size, Border border) {
  if (at >= 0 && at < size) return at;
  switch (border) {
    case Border::value:
      return -1;
    case Border::edge:
      return std::clamp<std::int64_t>(at, 0, size - 1);
    case Border::reflect:
      break;
  }
  if (size == 1) return 0;
  const std::int64_t period = 2 * (size - 1);
  const std::int64_t folded = (at % period + period) % period;
  return folded < size ? folded : period - folded;
}

// Where the pixels of an image that is moved without turning come from, by row and by column.
struct Moved {
  std::vector<std::int64_t> rows, columns;

  Moved(const Draw& draw, std::int64_t height, std::int64_t width, Border border) {
    fill(rows, height, draw.down, draw.upside_down, border);
    fill(columns, width, draw.right, draw.mirrored, border);
  }
  static void fill(std::vector<std::int64_t>& from, std::int64_t size, std::int64_t by, bool mirrored, Border border) {
    from.resize(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i) {
      const std::int64_t at = inside(i - by, size, border);
      from[static_cast<std::size_t>(i)] = at >= 0 && mirrored ? size - 1 - at : at;
    }
  }
};

// The four pixels that one of a turned image is the weighted mean of.
struct Taps {
  std::int64_t pixel[4];  // -1: the fill value
  float weight[4];
};

std::vector<Taps> turned(const Draw& draw, std::int64_t height, std::int64_t width, Border border) {
  std::vector<Taps> taps(static_cast<std::size_t>(height * width));
  const double middle_row = static_cast<double>(height - 1) / 2, middle_column = static_cast<double>(width - 1) / 2;
  const double c = std::cos(draw.angle), s = std::sin(draw.angle);
  for (std::int64_t row = 0; row < height; ++row)
    for (std::int64_t column = 0; column < width; ++column) {
      const double y = static_cast<double>(row - draw.down) - middle_row;
      const double x = static_cast<double>(column - draw.right) - middle_column;
      const double from_row = x * s + y * c + middle_row, from_column = x * c - y * s + middle_column;
      const double top = std::floor(from_row), left = std::floor(from_column);
      const double lower = from_row - top, righter = from_column - left;
      Taps& tap = taps[static_cast<std::size_t>(row * width + column)];
      for (std::int64_t k = 0; k < 4; ++k) {
        const std::int64_t dy = k / 2, dx = k % 2;
        std::int64_t at_row = inside(static_cast<std::int64_t>(top) + dy, height, border);
        std::int64_t at_column = inside(static_cast<std::int64_t>(left) + dx, width, border);
        if (draw.upside_down && at_row >= 0) at_row = height - 1 - at_row;
        if (draw.mirrored && at_column >= 0) at_column = width - 1 - at_column;
        tap.pixel[k] = at_row < 0 || at_column < 0 ? -1 : at_row * width + at_column;
        tap.weight[k] = static_cast<float>((dy == 1 ? lower : 1 - lower) * (dx == 1 ? righter : 1 - righter));
      }
    }
  return taps;
}

// Elements of a channel lie `pixel_step` apart, channels `channel_step`.
struct Steps {
  std::int64_t channels, channel_step, pixel_step;
};

template <class T>
void move_pixels(const T* from, T* to, const Moved& moved, const Steps& steps, T fill) {
  const auto width = std::ssize(moved.columns);
  for (std::int64_t channel = 0; channel < steps.channels; ++channel) {
    const T* const source = from + channel * steps.channel_step;
    T* target = to + channel * steps.channel_step;
    for (const std::int64_t row : moved.rows)
      for (const std::int64_t column : moved.columns) {
        *target = row < 0 || column < 0 ? fill : source[(row * width + column) * steps.pixel_step];
        target += steps.pixel_step;
      }
  }
}

template <class T>
void turn_pixels(const T* from, T* to, const std::vector<Taps>& taps, const Steps& steps, T fill) {
  for (std::int64_t channel = 0; channel < steps.channels; ++channel) {
    const T* const source = from + channel * steps.channel_step;
    T* target = to + channel * steps.channel_step;
    for (const Taps& tap : taps) {
      T sum = 0;
      for (std::size_t k = 0; k < 4; ++k)
        sum += static_cast<T>(tap.weight[k]) * (tap.pixel[k] < 0 ? fill : source[tap.pixel[k] * steps.pixel_step]);
      *target = sum;
      target += steps.pixel_step;
    }
  }
}

template <class T>
void add_noise(T* values, std::int64_t count, double deviation, std::uint64_t seed) {
  Random random(seed);
  const std::span<const float> quantiles = normal_table();
  const T scale = static_cast<T>(deviation);
  std::uint64_t bits = 0;
  for (std::int64_t i = 0; i < count; ++i, bits >>= 16) {
    if (i % 4 == 0) bits = random.next();
    values[i] += scale * static_cast<T>(quantiles[bits & 0xffff]);
  }
}

// log of a Gamma(shape, 1) number: Marsaglia and Tsang 2000, "A Simple Method for Generating Gamma Variables".
double log_gamma_number(double shape, Random& random) {
  double boost = 0;
  if (shape < 1) {
    boost = std::log(1 - random.uniform()) / shape;
    shape += 1;
  }
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = random.normal(), root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log(1 - random.uniform()) < x * x / 2 + d - d * v + d * std::log(v)) return std::log(d * v) + boost;
  }
}

double beta_number(double shape, Random& random) {
  const double first = log_gamma_number(shape, random), second = log_gamma_number(shape, random);
  return 1 / (1 + std::exp(second - first));
}

// Rows as weighted means: row i is share[i] of itself, the rest of row other[i].
void mix_rows(Tensor& tensor, std::span<const double> share, std::span<const std::size_t> other, ThreadPool& pool) {
  const DType type = tensor.dtype();
  const Tensor from = type == DType::float64 ? tensor : tensor.cast(DType::float32);
  Tensor to = Tensor::uninitialized(from.dtype(), from.dims());
  const std::int64_t width = from.size() / std::max<std::int64_t>(from.dim(0), 1);
  dispatch_floats(from.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* const source = from.data<T>().data();
    T* const target = to.mutable_data<T>().data();
    pool.parallel_for(std::ssize(share), 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const auto r = static_cast<std::size_t>(row);
        const T own = static_cast<T>(share[r]), rest = 1 - own;
        const T* const a = source + row * width;
        const T* const b = source + static_cast<std::int64_t>(other[r]) * width;
        for (std::int64_t i = 0; i < width; ++i) target[row * width + i] = own * a[i] + rest * b[i];
      }
    });
  });
  tensor = to.cast(type);
}

}  // namespace

Augmentation::Augmentation(AugmentationOptions options, const Model& model, std::optional<std::int64_t> classes,
                           std::uint64_t seed)
    : options_(std::move(options)), classes_(classes), seed_(seed) {
  find_input(model);
}

void Augmentation::find_input(const Model& model) {
  const std::vector<Value*> inputs = model.required_inputs();
  const auto known_dims = [](const Value& value) {
    Dims dims;
    if (value.type.shape)
      for (std::size_t i = 1; i < value.type.shape->size(); ++i)
        dims.push_back((*value.type.shape)[i].is_known() ? (*value.type.shape)[i].value() : -1);
    return dims;
  };
  const auto fits = [&](const Value& value) {
    if (!options_.input.empty()) return value.name() == options_.input;
    if (!is_float(value.type.elem)) return false;
    const Dims dims = known_dims(value);
    return !options_.moves_pixels() || !options_.image.empty() || dims.size() == 2 || dims.size() == 3;
  };
  const auto found = std::ranges::find_if(inputs, [&](const Value* value) { return fits(*value); });
  if (found == inputs.end() && !options_.input.empty())
    fail("augmentation: expected a required input '{}', found none", options_.input);
  if (options_.mixup > 0)
    for (const Value* input : inputs)
      require(is_float(input->type.elem), "augmentation: mixup needs floating-point inputs, found '{}' of type {}",
              input->name(), name(input->type.elem));
  require(found != inputs.end() || options_.moves_pixels(),
          "augmentation: noise needs a floating-point input, found none");
  require(found != inputs.end(),
          "augmentation: no floating-point input is an image: name one (input=NAME) and give the "
          "dims of its samples (image=1x28x28)");
  index_ = static_cast<std::size_t>(found - inputs.begin());
  input_ = (*found)->name();
  require(is_float((*found)->type.elem), "augmentation: expected a floating-point input, found '{}' of type {}", input_,
          name((*found)->type.elem));
  if (!options_.moves_pixels()) return;
  const Dims dims = known_dims(**found);
  if (!dims.empty() && std::ranges::all_of(dims, [](std::int64_t dim) { return dim > 0; })) declared_ = image_of(dims);
}

Augmentation::Image Augmentation::image_of(const Dims& sample) const {
  Dims dims = sample;
  if (!options_.image.empty()) {
    require(element_count(options_.image) == element_count(sample),
            "augmentation: expected samples of '{}' to hold {} elements (image={}), found {}", input_,
            element_count(options_.image), fmt::join(options_.image, "x"), to_string(sample));
    dims = options_.image;
  }
  if (dims.size() == 2)
    dims.insert(options_.layout == AugmentationOptions::Layout::channels_last ? dims.end() : dims.begin(), 1);
  require(dims.size() == 3,
          "augmentation: expected samples of '{}' to be images (channels, height, width; or say "
          "image=1x28x28), found {}",
          input_, to_string(sample));
  const auto is_channels = [](std::int64_t dim) { return dim == 1 || dim == 3 || dim == 4; };
  const bool last =
      options_.layout == AugmentationOptions::Layout::channels_last ||
      (options_.layout == AugmentationOptions::Layout::automatic && is_channels(dims[2]) && !is_channels(dims[0]));
  const Image image =
      last ? Image{.channels = dims[2], .height = dims[0], .width = dims[1], .channels_last = true}
           : Image{.channels = dims[0], .height = dims[1], .width = dims[2], .channels_last = false};
  const std::pair<const char*, std::int64_t> moves[] = {{"shift", options_.shift}, {"crop", options_.crop}};
  // One row or column that is repeated or mirrored stays what it is, wherever it is moved.
  const auto holds = [&](std::int64_t side, std::int64_t pixels) {
    return pixels < side || (side == 1 && options_.border != Border::value);
  };
  for (const auto& [key, pixels] : moves)
    require(pixels == 0 || (holds(image.height, pixels) && holds(image.width, pixels)),
            "augmentation '{}': expected fewer pixels than the images of '{}' have ({}x{}), found {}", key, input_,
            image.height, image.width, pixels);
  return image;
}

void Augmentation::apply(Batch& batch, std::span<const std::int64_t> numbers, std::int64_t epoch,
                         ThreadPool& pool) const {
  require(index_ < batch.inputs.size(), "augmentation: expected at least {} inputs, found {}", index_ + 1,
          batch.inputs.size());
  Tensor& tensor = batch.inputs[index_];
  require(tensor.rank() > 0 && tensor.dim(0) == std::ssize(numbers),
          "augmentation: expected {} samples of '{}', found {}", numbers.size(), input_, to_string(tensor.dims()));
  if (tensor.size() == 0) return;
  if (options_.moves_pixels() || options_.noise > 0) change_samples(tensor, numbers, epoch, pool);
  if (options_.mixup > 0) mix(batch, numbers, epoch, pool);
}

void Augmentation::change_samples(Tensor& tensor, std::span<const std::int64_t> numbers, std::int64_t epoch,
                                  ThreadPool& pool) const {
  const DType type = tensor.dtype();
  const Tensor from = type == DType::float64 ? tensor : tensor.cast(DType::float32);
  Tensor to = Tensor::uninitialized(from.dtype(), from.dims());
  const std::int64_t width = from.size() / from.dim(0);
  Image image;
  if (options_.moves_pixels()) image = image_of({from.dims().begin() + 1, from.dims().end()});
  const std::int64_t pixels = image.height * image.width;
  const Steps steps{.channels = image.channels,
                    .channel_step = image.channels_last ? 1 : pixels,
                    .pixel_step = image.channels_last ? image.channels : 1};
  const Random base = Random(seed_).split(static_cast<std::uint64_t>(epoch));
  dispatch_floats(from.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* const source = from.data<T>().data();
    T* const target = to.mutable_data<T>().data();
    const T fill = static_cast<T>(options_.fill);
    pool.parallel_for(std::ssize(numbers), 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Draw draw(options_, base.split(static_cast<std::uint64_t>(numbers[static_cast<std::size_t>(i)])));
        const T* const in = source + i * width;
        T* const out = target + i * width;
        if (!options_.moves_pixels())
          std::copy_n(in, width, out);
        else if (options_.rotate > 0)
          turn_pixels(in, out, turned(draw, image.height, image.width, options_.border), steps, fill);
        else
          move_pixels(in, out, Moved(draw, image.height, image.width, options_.border), steps, fill);
        if (options_.noise > 0) add_noise(out, width, options_.noise, draw.noise);
      }
    });
  });
  tensor = to.cast(type);
}

Tensor Augmentation::probabilities(const Tensor& labels) const {
  if (is_float(labels.dtype())) return labels;
  if (!classes_) return labels.cast(DType::float32);
  require(is_integer(labels.dtype()) && labels.size() == labels.dim(0),
          "augmentation: mixup expects one class for each sample, found labels {}{}", name(labels.dtype()),
          to_string(labels.dims()));
  Tensor result(DType::float32, {labels.dim(0), *classes_});
  const std::vector<std::int64_t> given = labels.to_ints();
  const auto to = result.mutable_data<float>();
  for (std::size_t i = 0; i < given.size(); ++i) {
    require(given[i] >= 0 && given[i] < *classes_, "expected a label from 0 to {}, found {}", *classes_ - 1, given[i]);
    to[i * static_cast<std::size_t>(*classes_) + static_cast<std::size_t>(given[i])] = 1;
  }
  return result;
}

void Augmentation::mix(Batch& batch, std::span<const std::int64_t> numbers, std::int64_t epoch,
                       ThreadPool& pool) const {
  const Random base = Random(seed_).split(static_cast<std::uint64_t>(epoch));
  std::vector<double> share;
  std::vector<std::size_t> other;
  for (const std::int64_t number : numbers) {
    Random random = Draw(options_, base.split(static_cast<std::uint64_t>(number))).rest;
    share.push_back(beta_number(options_.mixup, random));
    other.push_back(static_cast<std::size_t>(random.below(numbers.size())));
  }
  for (Tensor& input : batch.inputs) {
    mix_rows(input, share, other, pool);
  }
  if (!batch.labels.defined()) return;
  batch.labels = probabilities(batch.labels);
  mix_rows(batch.labels, share, other, pool);
}

std::string Augmentation::description() const {
  std::vector<std::string> done;
  if (options_.flip_horizontal || options_.flip_vertical)
    done.push_back(fmt::format("flip {}", options_.flip_horizontal && options_.flip_vertical ? "both"
                                          : options_.flip_horizontal                         ? "horizontal"
                                                                                             : "vertical"));
  if (options_.rotate > 0) done.push_back(fmt::format("rotate {} degrees", options_.rotate));
  if (options_.shift > 0) done.push_back(fmt::format("shift {}", options_.shift));
  if (options_.crop > 0) done.push_back(fmt::format("crop {}", options_.crop));
  if (options_.noise > 0) done.push_back(fmt::format("noise {}", options_.noise));
  if (options_.mixup > 0) done.push_back(fmt::format("mixup {}", options_.mixup));
  if (done.empty()) done.emplace_back("nothing");
  const std::string dims = declared_
                               ? fmt::format(" ({}x{} pixels, {} channels, {})", declared_->height, declared_->width,
                                             declared_->channels, declared_->channels_last ? "last" : "first")
                               : "";
  return fmt::format("augmentation of '{}'{}: {}", input_, dims, fmt::join(done, ", "));
}

}  // namespace onnxpress
