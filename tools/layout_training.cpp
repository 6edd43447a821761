// How trainings of a run went: what was minimized, and the curves by epoch.
#include <algorithm>

#include "tools/layout_parts.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

constexpr std::size_t short_curve = 20;

std::string loss_text(const Json& value) { return value.is_null() ? "-" : fmt::format("{:.5g}", value.get<double>()); }

std::string share_text(const Json& value) {
  return value.is_null() ? "-" : fmt::format("{:.2f} %", 100 * value.get<double>());
}

// Which epochs a short table shows: evenly spread, the last and the best among them.
std::vector<std::size_t> shown_epochs(const Json& training, bool verbose) {
  const Json& epochs = training["epochs"];
  std::vector<std::size_t> shown;
  for (std::size_t i = 0; i < epochs.size(); ++i) {
    const bool is_spread = verbose || epochs.size() <= short_curve ||
                           i * short_curve / epochs.size() != (i + 1) * short_curve / epochs.size();
    if (is_spread || epochs[i]["epoch"] == training["best_epoch"]) shown.push_back(i);
  }
  return shown;
}

void add_curve(Document& document, const Json& training, bool verbose) {
  Table table{{{"epoch", true},
               {"loss", true},
               {"held-out loss", true},
               {"held-out accuracy", true},
               {"learning rate", true},
               {"samples/s", true},
               {""}},
              {}};
  const Json& epochs = training["epochs"];
  const std::vector<std::size_t> shown = shown_epochs(training, verbose);
  for (const std::size_t i : shown) {
    const Json& epoch = epochs[i];
    const bool is_best = epoch["epoch"] == training["best_epoch"];
    const double seconds = epoch["seconds"].get<double>();
    const auto samples = epoch["samples"].get<double>();
    table.rows.push_back({epoch["epoch"] == 0 ? std::string("start") : grouped(epoch["epoch"].get<std::int64_t>()),
                          loss_text(epoch["loss"]), loss_text(epoch["held_out_loss"]),
                          share_text(epoch["held_out_accuracy"]), loss_text(epoch["learning_rate"]),
                          seconds > 0 && samples > 0 ? fmt::format("{:.3g}", samples / seconds) : "-",
                          is_best ? Cell("best", Tone::good) : Cell()});
  }
  document.emplace_back(std::move(table));
  if (shown.size() < epochs.size())
    document.emplace_back(
        Lines{{Cell(fmt::format("{} more epochs with --verbose", epochs.size() - shown.size()), Tone::dim)}});
}

}  // namespace

void add_trainings(Document& document, const Json& report, bool verbose) {
  for (const Json& pass : report["passes"]) {
    const Json& training = pass["training"];
    if (training.is_null()) continue;
    document.emplace_back(Heading{"Training of " + pass["pass"].get<std::string>()});
    document.emplace_back(Lines{{Cell(fmt::format(
        "{} of {} parameters in {} tensors, on {} samples ({} held out), batches of {}: {}, {} learning rate",
        training["loss"].get<std::string>(), grouped(training["parameters"].get<std::int64_t>()),
        training["tensors"].get<std::int64_t>(), grouped(training["samples"].get<std::int64_t>()),
        grouped(training["held_out_samples"].get<std::int64_t>()), training["batch_size"].get<std::int64_t>(),
        training["optimizer"].get<std::string>(), training["schedule"].get<std::string>()))}});
    add_curve(document, training, verbose);
  }
}

}  // namespace onnxpress
