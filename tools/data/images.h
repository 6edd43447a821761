// Folders of images by class, as an array of pixels and an array of labels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tools/data/array.h"

namespace onnxpress {

// 8-bit pixels, rows of interleaved channels.
struct Image {
  std::size_t width = 0, height = 0, channels = 0;  // 1 (gray) or 3 (RGB)
  std::vector<std::uint8_t> pixels;
};

// Decodes a PNG or JPEG file to 1 or 3 channels: alpha is dropped, palettes are expanded, gray is
// 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). Throws Error naming the file.
Image read_image(const std::filesystem::path& path, std::size_t channels);

// Where a model wants its channels.
enum class ImageLayout { nchw, nhwc };

// What every image of a folder must be.
struct ImageFormat {
  std::size_t channels = 0, height = 0, width = 0;
  ImageLayout layout = ImageLayout::nchw;
};

// FOLDER/CLASS/*.png|jpg|jpeg: the sorted class names are the labels 0, 1, ...; images in sorted
// order. The array is uint8 [N,C,H,W] or [N,H,W,C]. Throws Error: no classes, no images; reading
// throws when an image has another size.
DataSource open_image_folder(const std::filesystem::path& folder, const ImageFormat& format);

}  // namespace onnxpress
