#include "tools/data/npz.h"

#include <zip.h>
#include <zlib.h>

#include <limits>

#include "graph/base/error.h"
#include "tools/data/npy.h"

namespace onnxpress {

namespace {

// An open archive, shared by the readers of its members.
class Archive {
 public:
  explicit Archive(const std::filesystem::path& path) : path_(path.string()) {
    int code = 0;
    zip_ = zip_open(path_.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &code);
    if (zip_ != nullptr) return;
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string text = zip_error_strerror(&error);
    zip_error_fini(&error);
    fail("'{}' is not a complete .npz archive: {}", path_, text);
  }
  ~Archive() { zip_discard(zip_); }
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;

  zip_t* get() const { return zip_; }
  const std::string& path() const { return path_; }

 private:
  zip_t* zip_ = nullptr;
  std::string path_;
};

// A member decompressed front to back.
class MemberStream {
 public:
  MemberStream(std::shared_ptr<Archive> archive, zip_uint64_t index, std::string where)
      : archive_(std::move(archive)), index_(index), where_(std::move(where)) {
    open();
  }
  ~MemberStream() { close(); }
  MemberStream(const MemberStream&) = delete;
  MemberStream& operator=(const MemberStream&) = delete;

  void reopen() {
    close();
    open();
  }
  void read(std::span<std::byte> target) {
    while (!target.empty()) {
      const zip_int64_t got = zip_fread(file_, target.data(), target.size());
      require(got >= 0, "{}: {}", where_, zip_file_strerror(file_));
      require(got > 0, "{}: the member ends too early", where_);
      target = target.subspan(static_cast<std::size_t>(got));
    }
  }
  // After the last byte: the checksum is compared only when the end is reached.
  void finish() {
    std::byte more;
    const zip_int64_t got = zip_fread(file_, &more, 1);
    require(got == 0, "{}: {}", where_,
            got > 0 ? "the member is too long" : zip_file_strerror(file_));
  }

 private:
  void open() {
    file_ = zip_fopen_index(archive_->get(), index_, 0);
    require(file_ != nullptr, "{}: {}", where_, zip_strerror(archive_->get()));
  }
  void close() {
    if (file_ != nullptr) zip_fclose(file_);
    file_ = nullptr;
  }

  std::shared_ptr<Archive> archive_;
  zip_uint64_t index_;
  std::string where_;
  zip_file_t* file_ = nullptr;
};

class MemberReader : public ArrayReader {
 public:
  MemberReader(ArrayInfo info, std::unique_ptr<MemberStream> stream, std::size_t header_bytes)
      : ArrayReader(std::move(info)),
        stream_(std::move(stream)),
        header_bytes_(header_bytes),
        left_(data_bytes()) {}

  void rewind() override {
    stream_->reopen();
    left_ = header_bytes_ + data_bytes();
    skip(header_bytes_);
  }
  void read(std::span<std::byte> target) override {
    stream_->read(target);
    left_ -= target.size();
    if (left_ == 0 && !target.empty()) stream_->finish();
  }

 private:
  std::size_t data_bytes() const {
    return packed_bytes(info().dtype, static_cast<std::size_t>(element_count(info().dims)));
  }

  std::unique_ptr<MemberStream> stream_;
  std::size_t header_bytes_;
  std::size_t left_;
};

std::unique_ptr<ArrayReader> open_member(const std::shared_ptr<Archive>& archive,
                                         zip_uint64_t index) {
  zip_stat_t stat;
  zip_stat_init(&stat);
  require(zip_stat_index(archive->get(), index, 0, &stat) == 0, "'{}': {}", archive->path(),
          zip_strerror(archive->get()));
  std::string name = stat.name;
  if (name.ends_with(".npy")) name.resize(name.size() - 4);
  const std::string where = fmt::format("array '{}' of '{}'", name, archive->path());
  auto stream = std::make_unique<MemberStream>(archive, index, where);
  NpyHeader header =
      read_npy_header([&](std::span<std::byte> target) { stream->read(target); }, where);
  const std::uint64_t expected =
      header.header_bytes +
      packed_bytes(header.info.dtype, static_cast<std::size_t>(element_count(header.info.dims)));
  require(stat.size == expected, "{}: expected {} bytes for {}{}, found {}", where, expected,
          onnxpress::name(header.info.dtype), to_string(header.info.dims), stat.size);
  header.info.name = name;
  return std::make_unique<MemberReader>(std::move(header.info), std::move(stream),
                                        header.header_bytes);
}

// Little-endian fields of a zip record.
class Record {
 public:
  Record& u16(std::uint64_t value) { return put(value, 2); }
  Record& u32(std::uint64_t value) { return put(value, 4); }
  Record& u64(std::uint64_t value) { return put(value, 8); }
  Record& text(const std::string& value) {
    bytes_ += value;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  Record& put(std::uint64_t value, int width) {
    for (int i = 0; i < width; ++i) bytes_ += static_cast<char>(value >> (8 * i) & 0xff);
    return *this;
  }
  std::string bytes_;
};

constexpr std::uint64_t max32 = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t utf8_names = 1 << 11;
constexpr std::uint64_t dos_date = (0 << 9) | (1 << 5) | 1;  // 1980-01-01, the format's zero

}  // namespace

std::vector<std::unique_ptr<ArrayReader>> open_npz(const std::filesystem::path& path) {
  const auto archive = std::make_shared<Archive>(path);
  std::vector<std::unique_ptr<ArrayReader>> arrays;
  const zip_int64_t count = zip_get_num_entries(archive->get(), 0);
  for (zip_int64_t index = 0; index < count; ++index)
    arrays.push_back(open_member(archive, static_cast<zip_uint64_t>(index)));
  require(!arrays.empty(), "'{}' holds no arrays", path.string());
  return arrays;
}

void NpzWriter::write(const std::string& bytes) {
  sink_->write(std::as_bytes(std::span(bytes)));
  position_ += bytes.size();
}

void NpzWriter::add(const std::string& name, DType dtype, const Dims& dims, const Data& data) {
  const std::string header = npy_header(dtype, dims);
  uLong crc = crc32_z(0, reinterpret_cast<const Bytef*>(header.data()), header.size());
  std::uint64_t size = header.size();
  data([&](std::span<const std::byte> bytes) {
    crc = crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
    size += bytes.size();
  });
  const Member member{name + ".npy", static_cast<std::uint32_t>(crc), size, position_};
  const bool large = size >= max32;
  Record local;
  local.u32(0x04034b50).u16(large ? 45 : 20).u16(utf8_names).u16(0).u16(0).u16(dos_date);
  local.u32(member.crc).u32(large ? max32 : size).u32(large ? max32 : size);
  local.u16(member.name.size()).u16(large ? 20 : 0).text(member.name);
  if (large) local.u16(1).u16(16).u64(size).u64(size);
  write(local.bytes());
  write(header);
  data([&](std::span<const std::byte> bytes) {
    sink_->write(bytes);
    position_ += bytes.size();
  });
  members_.push_back(member);
}

void NpzWriter::add(const std::string& name, const Tensor& tensor) {
  add(name, tensor.dtype(), tensor.dims(), [&](const auto& put) { put(tensor.bytes()); });
}

void NpzWriter::finish() {
  const std::uint64_t directory = position_;
  for (const Member& member : members_) {
    const bool large = member.size >= max32, far = member.offset >= max32;
    const std::uint64_t extra = (large ? 16u : 0u) + (far ? 8u : 0u);
    Record record;
    record.u32(0x02014b50).u16(45).u16(large || far ? 45 : 20).u16(utf8_names).u16(0);
    record.u16(0).u16(dos_date).u32(member.crc);
    record.u32(large ? max32 : member.size).u32(large ? max32 : member.size);
    record.u16(member.name.size()).u16(extra > 0 ? extra + 4 : 0).u16(0).u16(0).u16(0).u32(0);
    record.u32(far ? max32 : member.offset).text(member.name);
    if (extra > 0) record.u16(1).u16(extra);
    if (large) record.u64(member.size).u64(member.size);
    if (far) record.u64(member.offset);
    write(record.bytes());
  }
  const std::uint64_t end = position_, count = members_.size();
  const bool large = end >= max32 || count >= 0xffff;
  Record tail;
  if (large) {
    tail.u32(0x06064b50).u64(44).u16(45).u16(45).u32(0).u32(0).u64(count).u64(count);
    tail.u64(end - directory).u64(directory);
    tail.u32(0x07064b50).u32(0).u64(end).u32(1);
  }
  tail.u32(0x06054b50).u16(0).u16(0).u16(large ? 0xffff : count).u16(large ? 0xffff : count);
  tail.u32(large ? max32 : end - directory).u32(large ? max32 : directory).u16(0);
  write(tail.bytes());
}

}  // namespace onnxpress
