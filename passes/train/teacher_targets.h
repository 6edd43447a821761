// What a teacher makes of training samples, as targets for a student.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/exec/engine.h"
#include "graph/exec/fit.h"
#include "passes/common/sample_store.h"
#include "passes/core/pass.h"

namespace onnxpress {

// A value of a teacher that is wanted.
struct TeacherValue {
  std::string name;        // of its main graph: an output, or any value
  bool as_logits = false;  // what its final Softmax, LogSoftmax or Sigmoid was applied to
  bool as_probabilities = false;  // behind a Sigmoid, put there if none of these is the last
  // Dims behind [samples, channels] that maps are brought to by averaging; nothing: as they are.
  std::optional<Dims> positions = {};

  bool operator==(const TeacherValue&) const = default;
};

struct TeacherTargetOptions {
  std::vector<std::string> student_inputs;        // names of the required ones, in order
  std::filesystem::path cache;                    // file or folder; empty: none
  bool samples_change = false;                    // augmentation: every batch is another
  std::size_t most_bytes = std::size_t{1} << 30;  // kept in memory; more: it runs on every batch
};

// Runs the teacher once over the training data and keeps what it gives, in memory or in the cache's
// file; where samples change or too much would be kept, runs it on every batch instead.
class TeacherTargets {
 public:
  // `training` is the student's data. Throws Unsuitable for values that are not there, a cache of
  // samples that change, and data that the teacher cannot be given.
  TeacherTargets(const TeacherSource& teacher, std::vector<TeacherValue> values, Dataset& training,
                 const TeacherTargetOptions& options, PassContext& context);

  // Of one sample's values.
  const std::vector<Dims>& rows() const { return rows_; }
  // By value, for FitOptions::compute_targets.
  std::vector<Tensor> targets(const Batch& batch, const BatchPlace& place);
  const std::string& note() const { return note_; }  // how they are had
  const std::string& key() const { return key_; }    // a hash of teacher, preprocessing, values and data

 private:
  std::vector<Tensor> run(const Batch& batch, bool is_students);
  std::vector<Tensor> adopted(const std::vector<Tensor>& inputs) const;
  void prepare(const Model& model, int threads);
  void keep(const std::filesystem::path& file, PassContext& context, std::size_t most_bytes);
  // Of its own, or the student's.
  Dataset& data() { return own_data_ != nullptr ? *own_data_ : training_; }

  std::string name_;
  std::vector<TeacherValue> values_;
  Dataset& training_;
  Dataset* own_data_;
  std::vector<std::string> student_inputs_, inputs_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::size_t> places_;  // by value: which of the engine's outputs
  std::optional<SampleStore> store_;
  std::vector<Dims> rows_;
  std::string renewed_;  // why a file that was there is made anew; else empty
  std::string note_, key_;
};

}  // namespace onnxpress
