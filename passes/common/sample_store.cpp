#include "passes/common/sample_store.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "graph/base/hash.h"
#include "passes/core/pass.h"

namespace onnxpress {
namespace {

static_assert(std::endian::native == std::endian::little, "records are little-endian");

constexpr std::string_view family = "onnxpress.samples/";
constexpr std::string_view magic = "onnxpress.samples/2\n";
constexpr std::size_t alignment = 64;
constexpr std::size_t hashed_block = std::size_t{1} << 20;
constexpr std::size_t checksum_digits = 32;

std::size_t row_bytes(const SampleStore::Column& column) {
  return packed_bytes(column.type, static_cast<std::size_t>(element_count(column.row)));
}

std::string header(const std::vector<SampleStore::Column>& columns, std::int64_t samples, std::string_view key) {
  Json list = Json::array();
  for (const SampleStore::Column& column : columns)
    list.push_back({{"name", column.name}, {"type", name(column.type)}, {"dims", column.row}});
  std::string text = std::string(magic) + Json{{"key", key}, {"samples", samples}, {"columns", list}}.dump();
  text.resize((text.size() + 1 + alignment - 1) / alignment * alignment, ' ');
  text.back() = '\n';
  return text;
}

// Columns of a batch, whose leading axis counts rows.
std::vector<SampleStore::Column> columns_of(const std::vector<std::string>& names, const std::vector<Tensor>& batch) {
  std::vector<SampleStore::Column> columns;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Tensor& tensor = batch[i];
    require(tensor.rank() > 0 && tensor.dim(0) == batch.front().dim(0), "'{}': expected one row a sample, found {}",
            names[i], to_string(tensor.dims()));
    require(tensor.dtype() != DType::string && bits(tensor.dtype()) >= 8, "'{}': rows of {} cannot be kept", names[i],
            name(tensor.dtype()));
    columns.push_back({names[i], tensor.dtype(), {tensor.dims().begin() + 1, tensor.dims().end()}});
  }
  return columns;
}

// Writes in blocks, and their checksum behind the last one.
class ChecksummedWriter {
 public:
  explicit ChecksummedWriter(StagedFiles::Sink& sink) : sink_(sink) {}

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto part = bytes.first(std::min(bytes.size(), hashed_block - pending_.size()));
      pending_.insert(pending_.end(), part.begin(), part.end());
      bytes = bytes.subspan(part.size());
      if (pending_.size() == hashed_block) put();
    }
  }

  void finish() {
    if (!pending_.empty()) put();
    const std::string digits = hasher_.finish().hex();
    sink_.write(std::as_bytes(std::span(digits)));
  }

 private:
  void put() {
    hasher_.add_bytes(pending_);
    sink_.write(pending_);
    pending_.clear();
  }

  StagedFiles::Sink& sink_;
  Hasher hasher_;
  std::vector<std::byte> pending_;
};

// Whether a file is as ChecksummedWriter left it. Pages are given back as they are done.
bool is_whole(const MappedFile& file) {
  const std::span<const std::byte> bytes = file.bytes();
  if (bytes.size() < checksum_digits) return false;
  const auto content = bytes.first(bytes.size() - checksum_digits);
  Hasher hasher;
  for (std::size_t begin = 0; begin < content.size(); begin += hashed_block) {
    const std::size_t size = std::min(hashed_block, content.size() - begin);
    hasher.add_bytes(content.subspan(begin, size));
    file.release(begin, size);
  }
  const auto digits = bytes.last(checksum_digits);
  return hasher.finish().hex() == std::string_view(reinterpret_cast<const char*>(digits.data()), digits.size());
}

}  // namespace

void SampleStore::lay_out() {
  offsets_.clear();
  record_bytes_ = 0;
  for (const Column& column : columns_) {
    offsets_.push_back(record_bytes_);
    const bool overflows = __builtin_add_overflow(record_bytes_, row_bytes(column), &record_bytes_);
    require(!overflows, "expected rows that fit into memory");
  }
}

std::string SampleStore::read_header(std::string_view text) {
  const std::size_t end = text.find('\n', magic.size());
  require(end != std::string_view::npos, "expected a description of samples, found none");
  start_ = end + 1;
  const Json json = Json::parse(text.substr(magic.size(), end - magic.size()), nullptr, false);
  require(json.is_object(), "expected a description of samples, found something else");
  try {
    samples_ = json.at("samples").get<std::int64_t>();
    for (const Json& column : json.at("columns")) {
      const auto type = dtype_from_name(column.at("type").get<std::string>());
      require(type && *type != DType::string && bits(*type) >= 8, "expected the type of a column, found {}",
              column.at("type").dump());
      columns_.push_back({column.at("name").get<std::string>(), *type, column.at("dims").get<Dims>()});
    }
    return json.at("key").get<std::string>();
  } catch (const Json::exception& error) {
    fail("expected a description of samples: {}", error.what());
  }
}

FoundSamples SampleStore::open(const std::filesystem::path& path, std::string_view key) {
  if (!std::filesystem::exists(path)) return {};
  return in_context([&] { return fmt::format("reading '{}'", path.native()); },
                    [&]() -> FoundSamples {
                      SampleStore store;
                      store.file_ = MappedFile::open(path);
                      const std::span<const std::byte> bytes = store.file_->bytes();
                      const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                      require(text.starts_with(family) || family.starts_with(text),
                              "expected a file of kept samples, found something else: remove it, or name another");
                      if (!text.starts_with(magic))
                        return {.reason = text.size() < magic.size() ? "it was cut short" : "it is of an older form"};
                      if (!is_whole(*store.file_)) return {.reason = "it is damaged or was cut short"};
                      if (store.read_header(text) != key)
                        return {.reason = "it was kept for another teacher, other values, data or preprocessing"};
                      store.lay_out();
                      std::size_t size = 0;
                      const std::size_t found = bytes.size() - checksum_digits - store.start_;
                      const bool fits = store.samples_ >= 0 &&
                                        !__builtin_mul_overflow(store.record_bytes_,
                                                                static_cast<std::size_t>(store.samples_), &size) &&
                                        size == found;
                      require(fits, "expected {} samples of {} bytes, found {} bytes", store.samples_,
                              store.record_bytes_, found);
                      return {.store = std::move(store)};
                    });
}

SampleStore SampleStore::record(const std::vector<std::string>& names, std::int64_t samples,
                                const std::function<std::vector<Tensor>()>& next, std::string_view key,
                                const std::filesystem::path& path, std::size_t most_bytes) {
  SampleStore store;
  store.samples_ = samples;
  std::vector<Tensor> batch = next();
  require(batch.size() == names.size(), "expected {} values, found {}", names.size(), batch.size());
  store.columns_ = columns_of(names, batch);
  store.lay_out();
  const auto write_all_rows = [&](const std::function<void(std::span<const std::byte>)>& write) {
    std::vector<std::byte> record(store.record_bytes_);
    std::int64_t done = 0;
    for (; !batch.empty(); batch = next()) {
      const std::vector<Column> columns = columns_of(names, batch);
      for (std::size_t i = 0; i < columns.size(); ++i)
        require(columns[i] == store.columns_[i], "'{}': expected {} for every sample, found {}", names[i],
                to_string(store.columns_[i].row), to_string(columns[i].row));
      for (std::int64_t row = 0; row < batch.front().dim(0); ++row, ++done) {
        for (std::size_t i = 0; i < columns.size(); ++i) {
          const std::size_t width = row_bytes(columns[i]);
          if (width > 0)
            std::memcpy(record.data() + store.offsets_[i],
                        batch[i].bytes().data() + static_cast<std::size_t>(row) * width, width);
        }
        require(done < samples, "expected {} samples, found more", samples);
        write(record);
      }
    }
    require(done == samples, "expected {} samples, found {}", samples, done);
  };
  if (path.empty()) {
    const std::size_t bytes = store.record_bytes_ * static_cast<std::size_t>(samples);
    require(bytes <= most_bytes, "{} samples of {} bytes do not fit into {} bytes", samples, store.record_bytes_,
            most_bytes);
    store.owned_.reserve(bytes);
    write_all_rows(
        [&](std::span<const std::byte> row) { store.owned_.insert(store.owned_.end(), row.begin(), row.end()); });
    return store;
  }
  StagedFiles staged;
  staged.add(path, [&](StagedFiles::Sink& sink) {
    const std::string text = header(store.columns_, samples, key);
    ChecksummedWriter writer(sink);
    writer.write(std::as_bytes(std::span(text)));
    write_all_rows([&](std::span<const std::byte> row) { writer.write(row); });
    writer.finish();
  });
  staged.commit();
  FoundSamples kept = open(path, key);
  require(kept.store.has_value(), "'{}' was changed while it was written: {}", path.native(), kept.reason);
  return std::move(*kept.store);
}

Tensor SampleStore::gather(std::size_t column, std::span<const std::int64_t> numbers) const {
  const Column& of = columns_.at(column);
  Dims dims = of.row;
  dims.insert(dims.begin(), std::ssize(numbers));
  Tensor result = Tensor::uninitialized(of.type, dims);
  const std::byte* const from = (file_ ? file_->bytes().data() + start_ : owned_.data()) + offsets_[column];
  std::byte* to = result.mutable_bytes().data();
  const std::size_t width = row_bytes(of);
  for (const std::int64_t number : numbers) {
    require(number >= 0 && number < samples_, "expected a sample below {}, found {}", samples_, number);
    if (width > 0) std::memcpy(to, from + static_cast<std::size_t>(number) * record_bytes_, width);
    to += width;
  }
  return result;
}

}  // namespace onnxpress
