// What a pass is, what it declares, what it is given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "graph/base/error.h"
#include "graph/base/threads.h"
#include "graph/exec/dataset.h"
#include "graph/exec/fit_observer.h"
#include "graph/ir/model.h"

namespace onnxpress {

using Json = nlohmann::ordered_json;

// What a pass may do to outputs; the runner checks it on probe inputs after every pass.
enum class Effect {
  exact,        // bit-equal in the reference kernels
  rounding,     // within 1e-5 of the output range, or the model's own rounding
  approximate,  // an SNR bound that the pass states (Outcome::min_snr_db)
  lossy,        // measured, not bounded
};
std::string_view name(Effect effect);
// What it allows, in one line for people.
std::string_view meaning(Effect effect);

// optional_calibration: the pass is better with it, and says so when it has none. teacher: training
// data and teachers; the model that the pipeline was given is one unless others are.
enum class Needs { nothing, calibration, optional_calibration, training, teacher };
std::string_view name(Needs needs);

struct OptionSpec {
  enum class Kind { integer, number, flag, text, choice, selector };
  std::string_view name;
  Kind kind = Kind::text;
  std::string_view default_value;  // as text; empty: none
  std::string_view help;
  std::string_view choices = "";   // choice: "a|b|c"
  double min = -1e300, max = 1e300;  // integer and number
};

std::string_view name(OptionSpec::Kind kind);

struct PassInfo {
  std::string_view name;
  std::string_view summary;                  // one line
  std::span<const OptionSpec> options = {};
  Effect effect = Effect::exact;
  Needs needs = Needs::nothing;
  std::int64_t min_opset = 0;                // 0: any
  std::string_view group = "";               // the group pass it is a member of ("simplify", "fuse")
  int group_order = 0;                       // members run by this, then by name
};

// Checked option values of one step. Unknown names, wrong kinds and values out of range are Errors
// that name the nearest option. Flags accept true, false, yes, no, 1 and 0; numbers accept per cent
// ("50%" is 0.5). Values come back from to_text() as they were given.
class Options {
 public:
  Options() = default;
  // `pass` and `specs` must outlive the object (they are static in every pass).
  Options(std::string_view pass, std::span<const OptionSpec> specs,
          const std::map<std::string, std::string>& given);

  // Each throws Error when the option is of another kind, or has neither value nor default.
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  bool flag(std::string_view name) const;
  const std::string& text(std::string_view name) const;  // text, choice, selector; may be empty
  bool given(std::string_view name) const;               // said by the user
  const std::string& given_text(std::string_view name) const;  // as given or, else, as declared
  // Options said by the user, "a=1,b=x" in declaration order, quoted as Pipeline::parse reads them;
  // empty when none.
  std::string to_text() const;
  Json to_json() const;                                  // all values, defaults included

 private:
  const std::string& value(std::string_view name, std::initializer_list<OptionSpec::Kind> kinds) const;
  std::string pass_;
  std::span<const OptionSpec> specs_;
  std::map<std::string, std::string, std::less<>> values_;
  std::map<std::string, bool, std::less<>> given_;
};

// Why something was left as it was: rule or pass, what, first failed condition.
struct NearMiss {
  std::string rule;
  std::string subject;   // "node 'bn1' (BatchNormalization)"
  std::string reason;    // "its input 'x' has another reader: node 'add' (Add)"
};

// What a pass was given does not suit it (labels that do not fit the outputs, an operator that
// cannot be trained through): the run cannot be done, where other errors of a pass roll it back.
class Unsuitable : public Error {
 public:
  using Error::Error;
};

// A model that others are trained after.
struct TeacherSource {
  std::string name;              // for messages: a file, "the original model"
  const Model* model = nullptr;
  // The training samples as its inputs, in the same order; nullptr: it reads what the student reads.
  Dataset* data = nullptr;
  std::string preprocessing = {};  // of its samples, as said: what is kept of them depends on it
  bool reads_otherwise = false;    // that is not the student's
  double weight = 1;               // among several
};

// What passes that train are given beside their options.
struct TrainingSupport {
  std::filesystem::path checkpoint = {};  // kept while training; empty: none
  bool resume = false;                    // go on from it, when it is there
  std::int64_t checkpoint_updates = 0;    // also kept every so many updates; 0: only after epochs
  FitObserver observer = {};              // progress and logs
  std::filesystem::path teacher_cache = {};  // file or folder for what teachers give; empty: memory
};

// What the runner gives a pass.
struct PassContext {
  const Options& options;
  ThreadPool& pool;
  std::uint64_t seed = 0;
  Dataset* calibration = nullptr;       // set when the pass needs it (or may use it and it was given);
                                        // so are the next two
  Dataset* training = nullptr;
  std::vector<TeacherSource> teachers = {};
  std::vector<NearMiss>* near_misses = nullptr;  // collected for --explain; may be nullptr
  std::filesystem::path calibration_cache = {};  // --calib-cache; empty: none
  // Hashes of the models that passes of this run have calibrated with that file so far.
  std::vector<std::string>* calibrated = nullptr;
  // "calibrating", units done and in all; may be empty. Called on the thread that runs the pass.
  std::function<void(const std::string&, std::size_t, std::size_t)> progress = {};
  TrainingSupport support = {};
};

// What a pass says of its run.
struct Outcome {
  bool changed = false;                 // checked by the runner against the structural hash
  std::vector<std::string> notes;       // one line each, for people
  Json counts = Json::object();         // rule or thing -> number
  std::vector<Json> layers;             // per-layer or per-tensor table: flat objects with equal keys
  Json training;                        // of passes that train: losses, curves (train_stage); else null
  double min_snr_db = 0;                // approximate passes: the bound on probe outputs
  // What this run may have done to outputs, when that is more than the pass declares (a fusion that
  // met a quantized model). Nothing: as declared.
  std::optional<Effect> effect;
};

class Pass {
 public:
  virtual ~Pass() = default;
  virtual const PassInfo& info() const = 0;
  // The opset this step needs for this model with these options; at least info().min_opset.
  virtual std::int64_t required_opset(const Model&, const Options&) const { return info().min_opset; }
  // Why a step that trains cannot keep a checkpoint (TrainingSupport::checkpoint) with these options; empty: it can.
  virtual std::string checkpoint_obstacle(const Options&) const { return {}; }
  // What this step needs with these options; options may only add to info().needs what it allows:
  // a pass of optional_calibration may make it calibration.
  virtual Needs needs(const Options&) const { return info().needs; }
  // Checks options that no single range expresses, before any work. Throws Error.
  virtual void check(const Options&) const {}
  // Checks what options say of this model, when the step begins, beside selectors. Throws Error.
  virtual void check_model(const Model&, const Options&) const {}
  // Throws Error, which rolls the pass back, or Unsuitable, which ends the run.
  virtual Outcome run(Model& model, PassContext& context) const = 0;
};

}  // namespace onnxpress
