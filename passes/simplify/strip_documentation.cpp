// Drops what a model says to its readers and trainers, and no runtime asks for.
#include "graph/onnx/wire.h"
#include "passes/core/registry.h"

namespace onnxpress {
namespace {

constexpr OptionSpec option_specs[] = {
    {.name = "metadata",
     .kind = OptionSpec::Kind::flag,
     .default_value = "false",
     .help = "drop metadata too: of the model, its functions, graphs, nodes and values"},
    {.name = "producer",
     .kind = OptionSpec::Kind::flag,
     .default_value = "false",
     .help = "drop the names and versions of producer, domain and model too"},
    {.name = "types",
     .kind = OptionSpec::Kind::flag,
     .default_value = "false",
     .help = "drop the declared types of interior values too (runtimes infer them)"},
};

class Stripper {
 public:
  explicit Stripper(const Options& options)
      : metadata_(options.flag("metadata")), types_(options.flag("types")) {}

  Json counts() const {
    return {{"doc_strings", doc_strings_}, {"metadata", properties_}, {"types", declarations_}};
  }
  bool changed() const { return doc_strings_ + properties_ + declarations_ > 0; }

  template <class Owner>
  void strip(Owner& owner) {
    doc_strings_ += owner.doc_string.empty() ? 0 : 1;
    owner.doc_string.clear();
    if (!metadata_) return;
    properties_ += std::ssize(owner.metadata);
    owner.metadata.clear();
  }

  void strip_graph(Graph& graph) {
    strip(graph);
    for (Value* value : graph.inputs()) strip(*value);
    for (Value* value : graph.initializers())
      if (!value->is_input()) strip_value(*value);
    for (Node* node : graph.nodes()) {
      strip(*node);
      for (Value* output : node->outputs())
        if (output) strip_value(*output);
    }
  }

 private:
  void strip_value(Value& value) {
    strip(value);
    if (!types_ || value.is_output() || !value.type_in_file) return;
    value.type_in_file = false;
    ++declarations_;
  }

  bool metadata_;
  bool types_;
  std::int64_t doc_strings_ = 0;
  std::int64_t properties_ = 0;
  std::int64_t declarations_ = 0;
};

// Removes ModelProto.training_info from fields kept as bytes.
std::int64_t strip_training(std::string& unknown_fields) {
  constexpr std::uint32_t training_info = wire::delimited(20);
  std::string kept;
  std::int64_t removed = 0;
  wire::Reader reader(std::as_bytes(std::span(unknown_fields)));
  for (wire::Field field; reader.next(field);) {
    if (field.tag == training_info)
      ++removed;
    else
      field.keep_in(kept);
  }
  if (removed > 0) unknown_fields = std::move(kept);
  return removed;
}

class StripDocumentation : public Pass {
 public:
  static constexpr PassInfo pass_info{
      .name = "strip_documentation",
      .summary = "drops doc strings and training information; metadata when asked to",
      .options = option_specs,
      .effect = Effect::exact};

  const PassInfo& info() const override { return pass_info; }

  Outcome run(Model& model, PassContext& context) const override {
    Stripper stripper(context.options);
    stripper.strip(model);
    for (const auto& function : model.functions) stripper.strip(*function);
    model.for_each_graph([&](Graph& graph) { stripper.strip_graph(graph); });
    const std::int64_t training = strip_training(model.unknown_fields);
    const bool producer = context.options.flag("producer") && drop_producer(model);
    Json counts = stripper.counts();
    counts["training"] = training;
    counts["producer"] = producer ? 1 : 0;
    return {.changed = stripper.changed() || training > 0 || producer, .counts = std::move(counts)};
  }

 private:
  static bool drop_producer(Model& model) {
    const bool any = !model.producer_name.empty() || !model.producer_version.empty() ||
                     !model.domain.empty() || model.model_version != 0;
    model.producer_name.clear();
    model.producer_version.clear();
    model.domain.clear();
    model.model_version = 0;
    return any;
  }
};

}  // namespace

PASS(strip_documentation) { registry.add(std::make_unique<StripDocumentation>()); }

}  // namespace onnxpress
