// Changing training samples at random as they are drawn, so that no epoch sees the same ones.
//
// What a sample becomes follows from the seed, the epoch and the sample's number alone (mixup: from
// those of the batch), on any number of threads: a run that is resumed sees the same samples.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "graph/base/threads.h"
#include "graph/exec/dataset.h"

namespace onnxpress {

struct AugmentationOptions {
  enum class Layout { automatic, channels_first, channels_last };
  enum class Border { value, edge, reflect };

  // In this order: mirrored, turned, moved, noise, mixed.
  bool flip_horizontal = false, flip_vertical = false;  // each with probability 1/2
  double rotate = 0;                                    // degrees, at most, either way round; bilinear
  std::int64_t shift = 0;                               // whole pixels, at most, along both axes
  std::int64_t crop = 0;  // padded by so many pixels, then the image's size cut out of it: a further shift
  double noise = 0;       // standard deviation of normal noise, in units of the input
  // Samples become weighted means of themselves and others of the batch, and so do their labels; weights are
  // Beta(mixup, mixup): Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
  double mixup = 0;

  Border border = Border::value;  // what comes in at the sides
  double fill = 0;                // the value, in units of the input
  std::string input;              // by name; empty: the first that fits
  Dims image;                     // of a flat input: [channels, height, width] or [height, width, channels]
  Layout layout = Layout::automatic;

  // From "shift=2,flip=horizontal,rotate=10,noise=0.05,mixup=0.2": also crop=4, flip=vertical|both,
  // fill=0.5|edge|reflect, input=NAME, image=1x28x28, layout=nchw|nhwc. Throws Error for what it does not
  // know and numbers out of range.
  static AugmentationOptions parse(std::string_view text);
  bool moves_pixels() const { return flip_horizontal || flip_vertical || rotate > 0 || shift > 0 || crop > 0; }
  bool is_nothing() const { return !moves_pixels() && noise == 0 && mixup == 0; }
};

class Augmentation {
 public:
  // For the model's required inputs. `classes`: of integer labels, which mixup makes probabilities of; nothing:
  // labels are numbers. Throws Error when no input is an image of floats (mixup and noise: of floats), for an image that
  // does not fit its input, and for one that is not larger than shift and crop.
  Augmentation(AugmentationOptions options, const Model& model, std::optional<std::int64_t> classes,
               std::uint64_t seed);

  // Changes a batch: row i is sample `numbers[i]` of the data. Class labels become float32 probabilities
  // [samples, classes] under mixup. Throws Error for labels that cannot be mixed.
  void apply(Batch& batch, std::span<const std::int64_t> numbers, std::int64_t epoch, ThreadPool& pool) const;
  // "images of 'x' (3x32x32, channels first): flip horizontal, shift 2", for reports.
  std::string description() const;

 private:
  struct Image {
    std::int64_t channels = 1, height = 1, width = 1;
    bool channels_last = false;
  };
  void find_input(const Model& model);
  Image image_of(const Dims& sample) const;
  void change_samples(Tensor& tensor, std::span<const std::int64_t> numbers, std::int64_t epoch,
                      ThreadPool& pool) const;
  void mix(Batch& batch, std::span<const std::int64_t> numbers, std::int64_t epoch, ThreadPool& pool) const;
  Tensor probabilities(const Tensor& labels) const;

  AugmentationOptions options_;
  std::optional<std::int64_t> classes_;
  std::uint64_t seed_;
  std::size_t index_ = 0;  // of the input among the required ones
  std::string input_;
  std::optional<Image> declared_;  // where the model or the options say all of it
};

}  // namespace onnxpress
