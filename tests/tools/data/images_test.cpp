#include "tools/data/images.h"

#include <png.h>
// jpeglib.h needs FILE and size_t declared before it.
#include <doctest/doctest.h>
#include <jpeglib.h>

#include <cstdio>
#include <cstdlib>

#include "graph/base/error.h"
#include "graph/ir/parse.h"
#include "tests/tools/data/scratch.h"
#include "tools/data/data.h"

namespace onnxpress {

namespace {

std::string png(unsigned width, unsigned height, int format,
                const std::vector<std::uint8_t>& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = static_cast<png_uint_32>(format);
  png_alloc_size_t size = 0;
  REQUIRE(png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, nullptr) != 0);
  std::string bytes(size, '\0');
  REQUIRE(png_image_write_to_memory(&image, bytes.data(), &size, 0, pixels.data(), 0, nullptr) !=
          0);
  return bytes;
}

std::string jpeg(unsigned width, unsigned height, const std::vector<std::uint8_t>& rgb) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &buffer, &size);
  info.image_width = width;
  info.image_height = height;
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 100, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < height) {
    JSAMPROW row =
        const_cast<std::uint8_t*>(rgb.data()) + std::size_t{3} * width * info.next_scanline;
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::string bytes(reinterpret_cast<const char*>(buffer), size);
  std::free(buffer);
  return bytes;
}

std::unique_ptr<Model> model_of(const std::string& type) {
  return parse_model("model ir=8 opset=17\ninput x: " + type +
                     "\ny: uint8[?] = Identity(x)\noutput y: uint8[?]\n");
}

const std::vector<std::uint8_t> red_blue{255, 0, 0, 0, 0, 255};  // 2x1 RGB

}  // namespace

TEST_CASE("PNG images become planes, classes become labels") {
  const Scratch scratch;
  scratch.write("dog/2.png", png(2, 1, PNG_FORMAT_RGB, red_blue));
  scratch.write("cat/1.png", png(2, 1, PNG_FORMAT_GRAY, {10, 20}));
  scratch.write("cat/readme.txt", "no image");
  const auto data = open_data(scratch.path(), *model_of("uint8[n,3,1,2]"));
  CHECK(data->samples() == 2);
  Batch batch;
  REQUIRE(data->next(batch));
  CHECK(batch.labels.to_ints() == std::vector<std::int64_t>{0, 1});
  CHECK(batch.inputs[0].to_ints() ==
        std::vector<std::int64_t>{10, 20, 10, 20, 10, 20, 255, 0, 0, 0, 0, 255});
}

TEST_CASE("channels last, by shape or by --layout") {
  const Scratch scratch;
  scratch.write("a/1.png", png(2, 1, PNG_FORMAT_RGB, red_blue));
  Batch batch;
  REQUIRE(open_data(scratch.path(), *model_of("uint8[n,1,2,3]"), {.layout = ImageLayout::nhwc})
              ->next(batch));
  CHECK(batch.inputs[0].to_ints() == std::vector<std::int64_t>{255, 0, 0, 0, 0, 255});
}

TEST_CASE("colour becomes gray by ITU-R BT.601, alpha is dropped") {
  const Scratch scratch;
  const auto path =
      scratch.write("i.png", png(2, 1, PNG_FORMAT_RGBA, {255, 0, 0, 1, 0, 0, 255, 0}));
  CHECK(read_image(path, 1).pixels == std::vector<std::uint8_t>{76, 29});
  CHECK(read_image(path, 3).pixels == red_blue);
}

TEST_CASE("JPEG images are decoded") {
  const Scratch scratch;
  const std::vector<std::uint8_t> gray(8 * 8 * 3, 128);
  const Image image = read_image(scratch.write("i.jpg", jpeg(8, 8, gray)), 1);
  CHECK(image.width == 8);
  CHECK(image.height == 8);
  CHECK(image.pixels == std::vector<std::uint8_t>(64, 128));
  CHECK(read_image(scratch / "i.jpg", 3).pixels.size() == 192);
}

TEST_CASE("images that do not fit or cannot be decoded are exact errors") {
  const Scratch scratch;
  scratch.write("a/1.png", png(2, 1, PNG_FORMAT_RGB, red_blue));
  const auto data = open_data(scratch.path(), *model_of("uint8[n,3,2,2]"));
  Batch batch;
  try {
    data->next(batch);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.message().find("expected 2x2 pixels (width x height), found 2x1") !=
          std::string::npos);
  }
  CHECK_THROWS_AS(open_data(scratch.path(), *model_of("float32[n,3,1,2]")), Error);
  CHECK_THROWS_AS(open_data(scratch.path(), *model_of("uint8[n,2,1,2]")), Error);
  const std::string bytes = png(2, 1, PNG_FORMAT_RGB, red_blue);
  CHECK_THROWS_AS(read_image(scratch.write("cut.png", bytes.substr(0, bytes.size() / 2)), 3),
                  Error);
  const std::string compressed = jpeg(8, 8, std::vector<std::uint8_t>(192, 9));
  CHECK_THROWS_AS(
      read_image(scratch.write("cut.jpg", compressed.substr(0, compressed.size() - 40)), 3), Error);
  CHECK_THROWS_AS(read_image(scratch.write("text.png", "text"), 3), Error);
}

}  // namespace onnxpress
