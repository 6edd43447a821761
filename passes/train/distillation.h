// What a student is trained towards, by a teacher's outputs and values inside it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graph/ops/infer.h"
#include "passes/common/loss_choice.h"
#include "passes/common/training_stage.h"
#include "passes/train/teacher_targets.h"

namespace onnxpress {

// The options of the pass `distill` beside those of training.
struct DistillationSettings {
  enum class Soft {
    automatic,
    distillation,
    decoupled_distillation,
    logits_mse,
    binary_cross_entropy,
    mse,
    l1,
    huber,
    none
  };
  // A value of the student and one of the teacher.
  struct Pair {
    std::string student, teacher;
  };

  Soft soft = Soft::automatic;
  double alpha = 0.9, temperature = 4, target_weight = 1, other_weight = 8;
  bool says_temperature = false;
  std::vector<Pair> outputs, hints, attention, relations;
  double hint_weight = 1, attention_weight = 1000, distance_weight = 25, angle_weight = 50;

  // Throws Error for values that contradict each other, and for options that do nothing beside the others.
  static DistillationSettings from(const Options& options);
};

// The student with what only training needs, and the losses on it.
class Distillation {
 public:
  // Runs the teachers, or reads what is kept of them. Throws Unsuitable for outputs and values that
  // do not match (both shapes are named), for options that turn out to do nothing, and for data without
  // labels where a loss on them was said.
  Distillation(const Model& student, const DistillationSettings& settings, const TrainingSettings& training,
               PassContext& context);

  Model& model() { return *model_; }
  // Computes targets by this object, which must outlive it.
  TrainingTask task();
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct SoftLoss {
    LossTerm term;
    std::size_t teacher = 0, value = 0;
    std::string_view option = "outputs";  // that named the values
    Dims dims = {};                       // of the student's, for the first batch; empty: of an output
  };

  std::vector<DistillationSettings::Pair> output_pairs(const TeacherSource& teacher) const;
  LossTerm::Kind soft_kind(const std::string& output, const Value& of_teacher) const;
  void choose_hard(const TrainingSettings& training, const std::string& data);
  void add_hard(const TrainingSettings& training);
  void add_soft(std::size_t teacher, double share);
  void add_inner();
  void add_hint(const DistillationSettings::Pair& pair);
  std::size_t want(std::size_t teacher, TeacherValue value);
  Dims inner_dims(const TypeInference& types, std::string_view option, const std::string& name) const;
  void run_teachers(PassContext& context);
  void check(const SoftLoss& loss);
  void finish(const SoftLoss& loss, std::uint64_t seed);

  const DistillationSettings& settings_;
  std::vector<TeacherSource> sources_;
  std::unique_ptr<Model> model_;
  FirstBatch first_;
  bool has_labels_ = false, samples_change_ = false;
  std::vector<std::vector<TeacherValue>> wanted_;  // by teacher
  std::vector<SoftLoss> soft_;
  std::vector<std::unique_ptr<TeacherTargets>> teachers_;
  TrainingTask task_;
  std::vector<std::string> notes_;
};

}  // namespace onnxpress
