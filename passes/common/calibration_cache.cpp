#include "passes/common/calibration_cache.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <utility>

#include "graph/base/error.h"
#include "graph/base/files.h"

namespace onnxpress {
namespace {

constexpr std::string_view schema = "onnxpress.calibration/1";

Json to_json(const ValueStatistics& statistics) {
  Json json{{"count", statistics.count},     {"nonfinite", statistics.nonfinite}, {"zeros", statistics.zeros},
            {"min", statistics.min},         {"max", statistics.max},             {"ema_min", statistics.ema_min},
            {"ema_max", statistics.ema_max}};
  if (!statistics.histogram.counts.empty())
    json["histogram"] = {{"exponent", statistics.histogram.exponent},
                         {"first", statistics.histogram.first},
                         {"counts", statistics.histogram.counts}};
  if (statistics.channel_axis)
    json["channels"] = {{"axis", *statistics.channel_axis},
                        {"min", statistics.channel_min},
                        {"max", statistics.channel_max},
                        {"mean", statistics.channel_mean}};
  return json;
}

Json to_json(const CalibrationCache::Entry& entry) {
  Json values = Json::object(), channels = Json::object();
  for (const auto& [key, statistics] : entry.calibration.values) values[key] = to_json(statistics);
  for (const auto& [key, axis] : entry.request.channels) channels[key] = axis;
  return {{"model", entry.calibration.model_hash},
          {"samples", entry.calibration.samples},
          {"data", entry.calibration.data},
          {"generated", entry.calibration.generated},
          {"request",
           {{"values", entry.request.values},
            {"channels", std::move(channels)},
            {"histograms", entry.request.histograms},
            {"computed_constants", entry.request.computed_constants}}},
          {"unseen", entry.calibration.unseen},
          {"values", std::move(values)}};
}

float finite_float(const Json& json) {
  const double value = json.get<double>();
  require(std::fabs(value) <= double{std::numeric_limits<float>::max()}, "expected a float32 number, found {}",
          json.dump());
  return static_cast<float>(value);
}

std::vector<float> finite_floats(const Json& json) {
  std::vector<float> values;
  for (const Json& element : json) values.push_back(finite_float(element));
  return values;
}

std::int64_t count_from(const Json& json) {
  require(json.is_number_unsigned() && json.get<std::uint64_t>() < (std::uint64_t{1} << 62),
          "expected a count, found {}", json.dump());
  return json.get<std::int64_t>();
}

Histogram histogram_from(const Json& json, const ValueStatistics& statistics) {
  Histogram histogram{.exponent = json.at("exponent").get<int>(), .first = json.at("first").get<std::int64_t>()};
  const Json& counts = json.at("counts");
  require(counts.is_array() && !counts.empty() && counts.size() <= Histogram::most_bins,
          "expected 1 to {} counts, found {}", Histogram::most_bins, counts.size());
  for (const Json& element : counts) histogram.counts.push_back(count_from(element));
  const auto size = static_cast<std::int64_t>(histogram.counts.size());
  require(histogram.first <= 0 && histogram.first > -size, "expected bins around zero, found {} of them from {} on",
          size, histogram.first);
  require(histogram.exponent >= Histogram::finest && histogram.exponent <= 128, "expected an exponent, found {}",
          histogram.exponent);
  require(histogram.total() == statistics.count &&
              histogram.counts[static_cast<std::size_t>(-histogram.first)] >= statistics.zeros,
          "counts do not sum up to {}", statistics.count);
  return histogram;
}

ValueStatistics statistics_from(const Json& json) {
  ValueStatistics statistics{.count = count_from(json.at("count")),
                             .nonfinite = count_from(json.at("nonfinite")),
                             .zeros = count_from(json.at("zeros")),
                             .min = finite_float(json.at("min")),
                             .max = finite_float(json.at("max")),
                             .ema_min = finite_float(json.at("ema_min")),
                             .ema_max = finite_float(json.at("ema_max"))};
  require(statistics.min <= statistics.max, "min {} is above max {}", statistics.min, statistics.max);
  if (json.contains("histogram")) statistics.histogram = histogram_from(json.at("histogram"), statistics);
  if (json.contains("channels")) {
    const Json& channels = json.at("channels");
    statistics.channel_axis = count_from(channels.at("axis"));
    statistics.channel_min = finite_floats(channels.at("min"));
    statistics.channel_max = finite_floats(channels.at("max"));
    statistics.channel_mean = channels.at("mean").get<std::vector<double>>();
    const std::size_t size = statistics.channel_min.size();
    require(statistics.channel_max.size() == size && statistics.channel_mean.size() == size,
            "channel statistics of different lengths");
  }
  return statistics;
}

ValueStatistics statistics_of(const std::string& key, const Json& json) {
  return in_context([&] { return fmt::format("value '{}'", key); }, [&] { return statistics_from(json); });
}

CalibrationCache::Entry entry_from(const Json& json) {
  CalibrationCache::Entry entry;
  entry.calibration.model_hash = json.at("model").get<std::string>();
  entry.calibration.samples = count_from(json.at("samples"));
  entry.calibration.data = json.at("data").get<std::string>();
  entry.calibration.generated = json.at("generated").get<bool>();
  const Json& request = json.at("request");
  for (const Json& key : request.at("values")) entry.request.values.insert(key.get<std::string>());
  for (const auto& [key, axis] : request.at("channels").items()) entry.request.channels[key] = count_from(axis);
  entry.request.histograms = request.at("histograms").get<bool>();
  entry.request.computed_constants = request.at("computed_constants").get<bool>();
  for (const Json& key : json.at("unseen")) entry.calibration.unseen.insert(key.get<std::string>());
  for (const auto& [key, value] : json.at("values").items())
    entry.calibration.values[key] = statistics_of(key, value);
  return entry;
}

}  // namespace

CalibrationCache::CalibrationCache(std::filesystem::path path, std::string data_hash)
    : path_(std::move(path)), data_hash_(std::move(data_hash)) {
  if (std::filesystem::exists(path_))
    in_context([&] { return fmt::format("calibration cache '{}'", path_.string()); }, [&] { read(); });
}

void CalibrationCache::read() {
  const auto file = MappedFile::open(path_);
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  try {
    const Json json = Json::parse(text);
    require(json.is_object() && json.value("schema", "") == schema, "expected a file of schema '{}'", schema);
    const auto found = json.at("data_hash").get<std::string>();
    require(found == data_hash_, "it belongs to other data: expected {}, found {}", data_hash_, found);
    for (const Json& entry : json.at("models")) {
      entries_.push_back(entry_from(entry));
      entries_.back().calibration.data_hash = data_hash_;
    }
  } catch (const Json::exception& error) {
    fail("expected a file of schema '{}': {}", schema, error.what());
  }
}

void CalibrationCache::require_model(const std::string& model_hash, bool expected) const {
  if (!expected || entries_.empty() || find(model_hash) != nullptr) return;
  fail("calibration cache '{}': it belongs to another model: expected {}, found {} (remove the file to calibrate "
       "again)",
       path_.string(), model_hash, entries_.front().calibration.model_hash);
}

const CalibrationCache::Entry* CalibrationCache::find(const std::string& model_hash) const {
  const auto found =
      std::ranges::find(entries_, model_hash, [](const Entry& entry) { return entry.calibration.model_hash; });
  return found == entries_.end() ? nullptr : &*found;
}

void CalibrationCache::store(Entry entry) {
  std::erase_if(entries_, [&](const Entry& old) {
    return old.calibration.model_hash == entry.calibration.model_hash;
  });
  entries_.push_back(std::move(entry));
  write();
}

void CalibrationCache::write() const {
  Json models = Json::array();
  for (const Entry& entry : entries_) models.push_back(to_json(entry));
  const Json json{{"schema", schema}, {"data_hash", data_hash_}, {"models", std::move(models)}};
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  StagedFiles staged;
  staged.add(path_, [&](StagedFiles::Sink& sink) { sink.write(std::as_bytes(std::span(text))); });
  staged.commit();
}

bool covers(const CalibrationRequest& kept, const CalibrationRequest& wanted) {
  if (!kept.values.empty() &&
      (wanted.values.empty() || !std::ranges::includes(kept.values, wanted.values)))
    return false;
  if ((wanted.histograms && !kept.histograms) || (wanted.computed_constants && !kept.computed_constants)) return false;
  return std::ranges::all_of(wanted.channels, [&](const auto& channel) {
    const auto found = kept.channels.find(channel.first);
    return found != kept.channels.end() && found->second == channel.second;
  });
}

CalibrationRequest joined(const CalibrationRequest& first, const CalibrationRequest& second) {
  CalibrationRequest both = second;
  if (first.values.empty()) both.values.clear();
  if (!both.values.empty()) both.values.insert(first.values.begin(), first.values.end());
  both.channels.insert(first.channels.begin(), first.channels.end());
  both.histograms = first.histograms || second.histograms;
  both.computed_constants = first.computed_constants || second.computed_constants;
  return both;
}

}  // namespace onnxpress
