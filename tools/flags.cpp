#include "tools/flags.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "graph/base/error.h"
#include "tools/session.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

// Runs `parse` on an option's text; its Error names the option.
template <class Parse>
auto parsed(const char* option, const std::string& text, Parse&& parse) {
  return in_context([&] { return option; }, [&] { return parse(text); });
}

template <class Parse>
auto limit(const char* option, const std::string& text, Parse&& parse) {
  using Value = decltype(parse(text));
  if (text.empty()) return std::optional<Limit<Value>>();
  return std::optional<Limit<Value>>({parsed(option, text, parse), text});
}

}  // namespace

std::int64_t parse_integer(const std::string& option, const std::string& text, std::int64_t least,
                           std::int64_t most) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (most == std::numeric_limits<std::int64_t>::max())
    require(whole && value >= least, "{}: expected a whole number from {}, found '{}'", option,
            least, text);
  require(whole && value >= least && value <= most,
          "{}: expected a whole number from {} to {}, found '{}'", option, least, most, text);
  return value;
}

void DataFlags::declare(CLI::App& app) {
  const std::string group = "Data";
  const auto add = [&](const char* name, auto& target, const char* type, const char* help) {
    app.add_option(name, target, help)->type_name(type)->group(group);
  };
  add("--input-scale", reading_.scale, "S", "multiply input data by S (1/255); lets integers become float");
  add("--input-mean", reading_.mean, "M[,M...]", "subtract M, one value or one per channel, after scaling");
  add("--input-std", reading_.std, "D[,D...]", "divide by D, one value or one per channel, last");
  add("--layout", reading_.layout, "nchw|nhwc", "where the model's inputs have their channels");
  add("--batch", batch_, "N", "samples in a batch where the model leaves it open (32)");
  add("--batch-axis", batch_axis_, "NAME=AXIS", "the axis of input NAME that counts samples (0)");
  add("--labels", labels_, "FILE", "labels from another file (.npy, .npz, IDX)");
  add("--input-range", ranges_, "NAME=LOW..HIGH", "range of generated values for input NAME");
  shapes_.declare(app, group);
}

void ReadingTexts::apply(DataOptions& options, const std::string& prefix) const {
  const auto read = [&](const char* name, const std::string& text, auto& target, auto&& parse) {
    if (text.empty()) return;
    target = in_context([&] { return fmt::format("--{}{}", prefix, name); }, [&] { return parse(text); });
  };
  read("input-scale", scale, options.scale, parse_number);
  read("input-mean", mean, options.mean, parse_numbers);
  read("input-std", std, options.std, parse_numbers);
  for (const double value : options.std) require(value != 0, "--{}input-std: division by 0", prefix);
  if (!layout.empty())
    options.layout = choose<ImageLayout>(fmt::format("--{}layout", prefix), layout,
                                         {{"nchw", ImageLayout::nchw}, {"nhwc", ImageLayout::nhwc}});
}

DataOptions DataFlags::options() const {
  DataOptions options;
  reading_.apply(options);
  if (!batch_.empty()) options.batch = parse_integer("--batch", batch_, 1, 1 << 20);
  for (const std::string& text : batch_axis_) {
    const auto [name, axis] = parsed("--batch-axis", text, parse_assignment);
    options.batch_axis[name] = static_cast<std::size_t>(parse_integer("--batch-axis", axis, 0, 64));
  }
  options.labels = labels_;
  return options;
}

InputRanges DataFlags::ranges() const {
  InputRanges ranges;
  for (const std::string& text : ranges_) {
    const auto [name, range] = parsed("--input-range", text, parse_assignment);
    const std::size_t dots = range.find("..");
    require(dots != std::string::npos, "--input-range: expected NAME=LOW..HIGH, found '{}'", text);
    const double low = parsed("--input-range", range.substr(0, dots), parse_number);
    const double high = parsed("--input-range", range.substr(dots + 2), parse_number);
    require(low <= high, "--input-range: {} is above {} for input '{}'", low, high, name);
    ranges[name] = {low, high};
  }
  return ranges;
}

std::map<std::string, std::string> DataFlags::said() const {
  std::map<std::string, std::string> said;
  const auto add = [&](const char* name, const std::string& text) {
    if (!text.empty()) said[name] = text;
  };
  add("input-scale", reading_.scale);
  add("input-mean", reading_.mean);
  add("input-std", reading_.std);
  add("layout", reading_.layout);
  add("batch", batch_);
  add("batch-axis", fmt::format("{}", fmt::join(batch_axis_, " ")));
  add("labels", labels_);
  add("input-range", fmt::format("{}", fmt::join(ranges_, " ")));
  add("input-shape", shapes_.said());
  return said;
}

void GateFlags::declare(CLI::App& app, const std::string& data_option) {
  data_option_ = data_option;
  const std::string group = "Gates (a missed one ends with status 1)";
  const auto add = [&](const char* name, std::string& target, const char* type,
                       const std::string& help) {
    app.add_option(name, target, help)->type_name(type)->group(group);
  };
  add("--max-drop", max_drop_, "P%",
      "the metric may fall by P points against the original (losses: rise by P %); needs " +
          data_option);
  add("--min-ratio", min_ratio_, "R", "bytes before / bytes after, external data included");
  add("--max-size", max_size_, "SIZE", "bytes after, external data included: 2MB, 500KiB");
  add("--min-agreement", min_agreement_, "P%",
      "share of samples whose top-1 equals the original's; needs " + data_option);
  add("--max-latency-ratio", max_latency_ratio_, "R",
      "time of one run after / before, side by side in this engine");
}

GateLimits GateFlags::limits() const {
  GateLimits limits;
  limits.max_drop = limit("--max-drop", max_drop_, parse_percent);
  limits.min_ratio = limit("--min-ratio", min_ratio_, parse_number);
  limits.max_size = limit("--max-size", max_size_, parse_size);
  limits.min_agreement = limit("--min-agreement", min_agreement_, parse_percent);
  limits.max_latency_ratio = limit("--max-latency-ratio", max_latency_ratio_, parse_number);
  const auto check = [](const char* option, const auto& limit, const char* expected, auto&& fits) {
    if (limit)
      require(fits(limit->value), "{}: expected {}, found '{}'", option, expected, limit->text);
  };
  const auto positive = [](double value) { return value > 0; };
  check("--max-drop", limits.max_drop, "0% or more", [](double value) { return value >= 0; });
  check("--min-ratio", limits.min_ratio, "a number above 0", positive);
  check("--max-size", limits.max_size, "1 byte or more",
        [](std::int64_t value) { return value > 0; });
  check("--min-agreement", limits.min_agreement, "0% to 100%",
        [](double value) { return value >= 0 && value <= 100; });
  check("--max-latency-ratio", limits.max_latency_ratio, "a number above 0", positive);
  return limits;
}

void GateFlags::require_data(bool given) const {
  require(given || max_drop_.empty(), "--max-drop needs {}", data_option_);
  require(given || min_agreement_.empty(), "--min-agreement needs {}", data_option_);
}

void MetricFlag::declare(CLI::App& app) {
  app.add_option("--metric", text_,
                 "top1, top5, precision, recall, f1, cross_entropy or mse: what --max-drop judges "
                 "(top1; mse for float labels)")
      ->type_name("NAME")
      ->group("Data");
}

std::optional<Metric> MetricFlag::metric() const {
  if (text_.empty()) return std::nullopt;
  if (const auto metric = metric_from_name(text_)) return metric;
  std::vector<std::string> names;
  for (const Metric metric : {Metric::top1, Metric::top5, Metric::precision, Metric::recall,
                              Metric::f1, Metric::cross_entropy, Metric::mse})
    names.emplace_back(name(metric));
  const std::string nearest = nearest_name(text_, names);
  fail("--metric: unknown metric '{}'{}", text_,
       nearest.empty() ? fmt::format(" ({} are known)", fmt::join(names, ", "))
                       : fmt::format("; did you mean '{}'?", nearest));
}

void DeflatedFlag::declare(CLI::App& app) {
  app.add_option("--deflated", text_,
                 "measure the size when compressed for shipping: auto (up to 32 MB), on, off")
      ->type_name("auto|on|off")
      ->group("Report");
}

DeflatedSize DeflatedFlag::size() const {
  return choose<DeflatedSize>(
      "--deflated", text_,
      {{"auto", DeflatedSize::automatic}, {"on", DeflatedSize::on}, {"off", DeflatedSize::off}});
}

// What no machine's memory holds more of.
constexpr std::int64_t most_input_elements = std::int64_t{1} << 40;

void InputShapeFlag::declare(CLI::App& app, const std::string& group) {
  app.add_option("--input-shape", texts_,
                 "make the open dims of input NAME numbers: for MACs, memory and generated inputs; "
                 "repeatable")
      ->type_name("NAME=1x3x224x224")
      ->group(group);
}

InputShapes InputShapeFlag::shapes() const {
  InputShapes shapes;
  for (const std::string& text : texts_) {
    const auto [name, dims] = parsed("--input-shape", text, parse_assignment);
    Dims given = parsed("--input-shape", dims, parse_dims);
    require(std::ranges::all_of(given, [](std::int64_t dim) { return dim > 0; }),
            "--input-shape: input '{}': expected dims of at least 1, found {}", name,
            to_string(given));
    require(element_count(given) <= most_input_elements,
            "--input-shape: input '{}': expected at most {} elements, found {}", name,
            most_input_elements, to_string(given));
    require(shapes.try_emplace(name, std::move(given)).second,
            "--input-shape: input '{}' is given twice", name);
  }
  return shapes;
}

std::unique_ptr<Model> InputShapeFlag::applied(const Model& model) const {
  const InputShapes known = shapes();
  return in_context([] { return "--input-shape"; },
                    [&] { return with_input_shapes(model, known); });
}

std::string InputShapeFlag::said() const { return fmt::format("{}", fmt::join(texts_, " ")); }

}  // namespace onnxpress
