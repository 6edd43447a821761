#include "tools/data/images.h"

#include <png.h>
// jpeglib.h needs FILE and size_t declared before it.
#include <jpeglib.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "graph/base/error.h"
#include "graph/base/files.h"

namespace onnxpress {

namespace fs = std::filesystem;

namespace {

// Refuses images that no model input has, before memory is taken for them.
constexpr std::size_t max_side = 1 << 16;

Image read_png(const MappedFile& file, std::size_t channels) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  const auto check = [&](bool ok) {
    if (ok) return;
    const std::string text = png.message;
    png_image_free(&png);
    fail("'{}': {}", file.path().string(), text);
  };
  check(png_image_begin_read_from_memory(&png, file.bytes().data(), file.bytes().size()) != 0);
  if (png.width > max_side || png.height > max_side) {
    const auto width = png.width, height = png.height;
    png_image_free(&png);
    fail("'{}': image of {}x{} pixels", file.path().string(), width, height);
  }
  // Alpha is dropped below: composing on a background would change colours.
  png.format = PNG_FORMAT_RGBA;
  Image image{.width = png.width, .height = png.height, .channels = channels, .pixels = {}};
  std::vector<std::uint8_t> rgba(PNG_IMAGE_SIZE(png));
  check(png_image_finish_read(&png, nullptr, rgba.data(), 0, nullptr) != 0);
  image.pixels.reserve(image.width * image.height * channels);
  for (std::size_t i = 0; i < rgba.size(); i += 4) {
    const unsigned red = rgba[i], green = rgba[i + 1], blue = rgba[i + 2];
    if (channels == 1) {
      image.pixels.push_back(
          static_cast<std::uint8_t>((299 * red + 587 * green + 114 * blue + 500) / 1000));
    } else {
      image.pixels.insert(image.pixels.end(), {rgba[i], rgba[i + 1], rgba[i + 2]});
    }
  }
  return image;
}

struct JpegErrors {
  jpeg_error_mgr manager;
  std::jmp_buf jump;
  char text[JMSG_LENGTH_MAX];
};

void jpeg_failed(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  errors->manager.format_message(info, errors->text);
  std::longjmp(errors->jump, 1);
}

void jpeg_warned(j_common_ptr info, int level) {
  if (level < 0) jpeg_failed(info);  // corrupt data: pixels would be made up
}

// Fills `image`; no object with a destructor lives in this frame, which longjmp leaves. Returns
// false with errors.text set when the data is bad.
bool decode_jpeg(jpeg_decompress_struct& info, JpegErrors& errors, const MappedFile& file,
                 Image& image) {
  if (setjmp(errors.jump)) return false;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(file.bytes().data()),
               static_cast<unsigned long>(file.bytes().size()));
  jpeg_read_header(&info, TRUE);
  info.out_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&info);
  image.width = info.output_width;
  image.height = info.output_height;
  const std::size_t stride = image.width * image.channels;
  image.pixels.resize(stride * image.height);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = image.pixels.data() + stride * info.output_scanline;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return true;
}

Image read_jpeg(const MappedFile& file, std::size_t channels) {
  Image image{.width = 0, .height = 0, .channels = channels, .pixels = {}};
  jpeg_decompress_struct info{};
  JpegErrors errors{};
  info.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = jpeg_failed;
  errors.manager.emit_message = jpeg_warned;
  const bool good = decode_jpeg(info, errors, file, image);
  jpeg_destroy_decompress(&info);
  require(good, "'{}': {}", file.path().string(), errors.text);
  return image;
}

class ImageReader : public ArrayReader {
 public:
  ImageReader(ArrayInfo info, std::vector<fs::path> files, const ImageFormat& format)
      : ArrayReader(std::move(info)), files_(std::move(files)), format_(format) {}

  void rewind() override {
    next_ = 0;
    row_.clear();
    used_ = 0;
  }
  void read(std::span<std::byte> target) override {
    while (!target.empty()) {
      if (used_ == row_.size()) load();
      const std::size_t step = std::min(target.size(), row_.size() - used_);
      std::memcpy(target.data(), row_.data() + used_, step);
      used_ += step;
      target = target.subspan(step);
    }
  }

 private:
  void load() {
    require(next_ < files_.size(), "no images are left");
    const fs::path& file = files_[next_++];
    const Image image = read_image(file, format_.channels);
    require(image.width == format_.width && image.height == format_.height,
            "'{}': expected {}x{} pixels (width x height), found {}x{}", file.string(),
            format_.width, format_.height, image.width, image.height);
    used_ = 0;
    if (format_.layout == ImageLayout::nhwc) {
      row_ = image.pixels;
      return;
    }
    const std::size_t plane = image.width * image.height, channels = image.channels;
    row_.resize(plane * channels);
    for (std::size_t i = 0; i < plane; ++i)
      for (std::size_t c = 0; c < channels; ++c)
        row_[c * plane + i] = image.pixels[i * channels + c];
  }

  std::vector<fs::path> files_;
  ImageFormat format_;
  std::size_t next_ = 0;
  std::vector<std::uint8_t> row_;
  std::size_t used_ = 0;
};

class LabelReader : public ArrayReader {
 public:
  explicit LabelReader(std::vector<std::int64_t> labels)
      : ArrayReader({.name = "labels",
                     .dtype = DType::int64,
                     .dims = {static_cast<std::int64_t>(labels.size())}}),
        labels_(std::move(labels)) {}

  void rewind() override { used_ = 0; }
  void read(std::span<std::byte> target) override {
    const auto bytes = std::as_bytes(std::span(labels_));
    require(target.size() <= bytes.size() - used_, "no labels are left");
    std::memcpy(target.data(), bytes.data() + used_, target.size());
    used_ += target.size();
  }

 private:
  std::vector<std::int64_t> labels_;
  std::size_t used_ = 0;
};

bool is_image(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

std::vector<fs::path> sorted_entries(const fs::path& folder, bool (*wanted)(const fs::path&)) {
  std::vector<fs::path> result;
  for (const auto& entry : fs::directory_iterator(folder))
    if (wanted(entry.path())) result.push_back(entry.path());
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace

Image read_image(const fs::path& path, std::size_t channels) {
  require(channels == 1 || channels == 3, "images have 1 or 3 channels, the model's input has {}",
          channels);
  const auto file = MappedFile::open(path);
  const auto starts_with = [&](std::string_view magic) {
    return file->bytes().size() >= magic.size() &&
           std::memcmp(file->bytes().data(), magic.data(), magic.size()) == 0;
  };
  if (starts_with("\x89PNG")) return read_png(*file, channels);
  if (starts_with("\xff\xd8")) return read_jpeg(*file, channels);
  fail("'{}': expected a PNG or JPEG image, found other bytes", path.string());
}

DataSource open_image_folder(const fs::path& folder, const ImageFormat& format) {
  const std::vector<fs::path> classes =
      sorted_entries(folder, [](const fs::path& path) { return fs::is_directory(path); });
  require(!classes.empty(),
          "'{}' holds neither test_data_set_*, input_0.pb nor folders of images by class",
          folder.string());
  std::vector<fs::path> files;
  std::vector<std::int64_t> labels;
  for (std::size_t label = 0; label < classes.size(); ++label)
    for (const fs::path& file : sorted_entries(classes[label], is_image)) {
      files.push_back(file);
      labels.push_back(static_cast<std::int64_t>(label));
    }
  require(!files.empty(), "'{}': no .png, .jpg or .jpeg file in its {} class folders",
          folder.string(), classes.size());

  const auto n = static_cast<std::int64_t>(files.size());
  const auto c = static_cast<std::int64_t>(format.channels);
  const auto h = static_cast<std::int64_t>(format.height);
  const auto w = static_cast<std::int64_t>(format.width);
  ArrayInfo info{.name = "", .dtype = DType::uint8, .dims = {n, c, h, w}};
  if (format.layout == ImageLayout::nhwc) info.dims = {n, h, w, c};
  DataSource source;
  source.path = folder;
  source.arrays.push_back(std::make_unique<ImageReader>(std::move(info), std::move(files), format));
  source.labels = std::make_unique<LabelReader>(std::move(labels));
  return source;
}

}  // namespace onnxpress
