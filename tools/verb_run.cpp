// onnxpress run MODEL --input DATA -o OUT.npz: the model's outputs.
#include <unistd.h>

#include <algorithm>

#include "graph/exec/engine.h"
#include "graph/onnx/writer.h"
#include "tools/cli.h"
#include "tools/data/npz.h"
#include "tools/flags.h"
#include "tools/judgement.h"
#include "tools/profile.h"
#include "tools/run_output.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

class StandardOutput : public StagedFiles::Sink {
 public:
  void write(std::span<const std::byte> bytes) override {
    write_to(STDOUT_FILENO, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
};

void write_npz(const std::vector<RunOutput>& outputs, StagedFiles::Sink& sink) {
  NpzWriter writer(sink);
  for (const RunOutput& output : outputs)
    for (const OutputSpool& part : output.parts())
      writer.add(part.name(), part.stored_type(), part.dims(),
                 [&](const auto& put) { part.read(put); });
  writer.finish();
}

class RunVerb : public Verb {
 public:
  std::string name() const override { return "run"; }
  std::string summary() const override { return "Runs a model on data and writes its outputs."; }
  std::string usage() const override { return "MODEL --input DATA -o OUT.npz"; }

  void declare(CLI::App& app) override {
    app.add_option("MODEL", path_, "a model, or - for standard input");
    app.add_option("-i,--input", input_, "samples: .npz, .npy, IDX, ONNX test sets, image folder")
        ->type_name("DATA")
        ->group("Data");
    app.add_option("-o,--output", output_,
                   "OUT.npz, - for standard output, or a folder for output_K.pb")
        ->type_name("OUT");
    app.add_flag("--profile", profile_,
                 "also show the time of every operator and the slowest nodes")
        ->group("Profile");
    app.add_option("--profile-trace", trace_,
                   "write every step's time as Chrome trace JSON (chrome://tracing, Perfetto)")
        ->type_name("FILE")
        ->group("Profile");
    flags_.declare(app);
  }

  int run(Session& session) override {
    require(!path_.empty(), "run: expected a model");
    require(!input_.empty(), "run: expected --input DATA");
    require(!output_.empty(), "run: expected -o OUT.npz or -o FOLDER");
    const bool to_pipe = output_ == "-";
    const bool to_npz = to_pipe || std::filesystem::path(output_).extension() == ".npz";
    DataOptions options = flags_.options();
    options.accepts_values = true;
    if (!to_npz)
      require(std::filesystem::is_directory(output_),
              "run: '{}' is neither a .npz file nor a folder that exists", output_);
    refuse_overwriting({output_, trace_},
                       joined({path_, input_, flags_.labels()}, session.settings().plugins));
    if (to_npz && !to_pipe) check_writable(output_);
    if (!trace_.empty()) check_writable(trace_);
    LoadedModel loaded = load_model(path_, DeflatedSize::off);
    refuse_overwriting(joined(output_files(*loaded.model), {trace_}),
                       joined({path_, input_, flags_.labels()}, loaded.data_files));
    session.warn(loaded.warnings);
    if (flags_.shapes().given()) loaded.model = flags_.shapes().applied(*loaded.model);
    require_engine_runs(*loaded.model);
    const std::unique_ptr<Dataset> data = open_data(input_, *loaded.model, options);
    tell_notes(*data, session, loaded.notes);
    Profile profile;
    const std::vector<RunOutput> outputs = run_all(*loaded.model, *data, to_npz, session, profile);

    StagedFiles staged;
    if (!trace_.empty())
      staged.add(trace_, [&](StagedFiles::Sink& sink) { profile.write_trace(sink); });
    if (to_pipe) {
      StandardOutput sink;
      write_npz(outputs, sink);
    } else if (to_npz) {
      staged.add(output_, [&](StagedFiles::Sink& sink) { write_npz(outputs, sink); });
    } else {
      stage_protobufs(outputs, staged);
    }
    session.finish(report(loaded, *data, outputs, session, profile), staged,
                   to_pipe ? STDERR_FILENO : STDOUT_FILENO);
    return status_done;
  }

 private:
  // The files to write: one, or one per output of the model.
  std::vector<std::string> output_files(const Model& model) const {
    if (!std::filesystem::is_directory(output_)) return {output_};
    std::vector<std::string> files;
    for (std::size_t i = 0; i < model.graph.outputs().size(); ++i)
      files.push_back(output_file(i).string());
    return files;
  }
  std::filesystem::path output_file(std::size_t index) const {
    return std::filesystem::path(output_) / fmt::format("output_{}.pb", index);
  }

  std::vector<RunOutput> run_all(const Model& model, Dataset& data, bool to_npz, Session& session,
                                 Profile& profile) const {
    EngineOptions options{.threads = session.threads()};
    if (profile_ || !trace_.empty())
      options.on_step = [&](const StepTiming& timing) { profile.add(timing); };
    Engine engine(model, options);
    std::vector<RunOutput> outputs;
    for (const Value* value : model.graph.outputs()) outputs.emplace_back(value->name(), to_npz);
    WatchedDataset watched(data, session.progress());
    session.progress().stage("running");
    watched.rewind();
    Batch batch;
    while (watched.next(batch)) {
      std::vector<RuntimeValue> inputs = batch.values;
      if (inputs.empty()) inputs.assign(batch.inputs.begin(), batch.inputs.end());
      const std::vector<RuntimeValue> results = engine.run(inputs);
      const std::int64_t rows = std::max(leading_count(batch.inputs), batch.samples);
      for (std::size_t i = 0; i < results.size(); ++i)
        outputs[i].append(results[i], batch.samples, rows);
    }
    return outputs;
  }

  void stage_protobufs(const std::vector<RunOutput>& outputs, StagedFiles& staged) const {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const std::string bytes = value_to_bytes(outputs[i].whole(), outputs[i].name());
      staged.add(output_file(i),
                 [&](StagedFiles::Sink& sink) { sink.write(std::as_bytes(std::span(bytes))); });
    }
  }

  Json report(const LoadedModel& loaded, const Dataset& data, const std::vector<RunOutput>& outputs,
              const Session& session, const Profile& profile) const {
    Json result = report_header(session.run_info(name()));
    result["headline"] = "";
    result["warnings"] = loaded.warnings;
    result["notes"] = loaded.notes;
    result["model"] = {{"file", loaded.file.path}, {"sha256", loaded.file.sha256}};
    result["data"] = {{"input", data_section(data)}};
    result["preprocessing"] = flags_.said();
    result["input_shapes"] = flags_.shapes().shapes();
    result["outputs"] = Json::array();
    for (const RunOutput& output : outputs)
      for (const OutputSpool& part : output.parts()) {
        result["outputs"].push_back({{"name", part.name()},
                                     {"type", onnxpress::name(part.type())},
                                     {"dims", part.dims()},
                                     {"stored_as", onnxpress::name(part.stored_type())},
                                     {"non_finite", non_finite_section(part.non_finite())}});
        if (part.non_finite().any())
          result["warnings"].push_back(to_string(part.name(), part.non_finite()));
      }
    if (profile_) result["profile"] = profile.section();
    return result;
  }

  std::string path_, input_, output_, trace_;
  bool profile_ = false;
  DataFlags flags_;
};

}  // namespace

std::unique_ptr<Verb> run_verb() { return std::make_unique<RunVerb>(); }

}  // namespace onnxpress
