#include "tools/teacher_flags.h"

#include <filesystem>
#include <utility>

#include "graph/exec/engine.h"
#include "passes/common/inference_form.h"
#include "tools/flags.h"
#include "tools/judgement.h"
#include "tools/model_file.h"
#include "tools/units.h"

namespace onnxpress {

namespace {

// "a,b,c"
std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts;
  if (!text.empty()) parts = CLI::detail::split(text, ',');
  return parts;
}

std::string joined_text(const std::map<std::string, std::string>& said) {
  std::string text;
  for (const auto& [option, value] : said) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", option, value);
  return text;
}

}  // namespace

void TeacherFlags::declare(CLI::App& app) {
  const std::string group = "Teacher";
  const auto add = [&](const char* name, std::string& target, const char* type, const char* help) {
    app.add_option(name, target, help)->type_name(type)->group(group);
  };
  add("--teacher", models_, "MODEL[,MODEL]", "the model, or models, that passes train after");
  add("--teacher-weights", weights_, "X[,X]", "weights of several teachers (all alike)");
  add("--teacher-cache", cache_, "FILE|DIR",
      "keep what teachers make of --train, so that they run once; a folder for several");
  add("--teacher-input-scale", reading_.scale, "S", "factor of the teacher's input data; else that of the student");
  add("--teacher-input-mean", reading_.mean, "M",
      "subtracted from the teacher's input data; else as for the student");
  add("--teacher-input-std", reading_.std, "D", "the teacher's input data is divided by it; else as for the student");
  add("--teacher-layout", reading_.layout, "nchw|nhwc",
      "where the teacher has its channels; else as for the student");
}

bool TeacherJob::has_cache_folder() const {
  std::error_code none;
  return !cache.empty() &&
         (cache.ends_with('/') || std::filesystem::is_directory(cache, none) ||
          (models.size() > 1 && !std::filesystem::exists(cache, none)));
}

TeacherJob TeacherFlags::job(const DataOptions& student) const {
  TeacherJob job{.models = parts_of(models_), .cache = cache_, .data_options = student};
  const std::pair<const char*, const std::string*> reading[] = {{"teacher-input-scale", &reading_.scale},
                                                                {"teacher-input-mean", &reading_.mean},
                                                                {"teacher-input-std", &reading_.std},
                                                                {"teacher-layout", &reading_.layout}};
  for (const auto& [option, text] : reading)
    if (!text->empty()) job.preprocessing[option] = *text;
  job.reads_otherwise = !job.preprocessing.empty();
  for (const auto& [option, text] : job.preprocessing)
    require(given(), "--{}: expected --teacher MODEL, found none", option);
  require(given() || weights_.empty(), "--teacher-weights: expected --teacher MODEL, found none");
  for (const std::string& text : parts_of(weights_)) {
    job.weights.push_back(in_context([] { return "--teacher-weights"; }, [&] { return parse_number(text); }));
    require(job.weights.back() > 0, "--teacher-weights: expected numbers above 0, found {}", text);
  }
  require(job.weights.empty() || job.weights.size() == job.models.size(), "--teacher-weights: expected {}, found {}",
          job.models.size(), job.weights.size());
  require(job.weights.size() != 1, "--teacher-weights: expected several teachers, found one");
  reading_.apply(job.data_options, "teacher-");
  return job;
}

LoadedTeachers::LoadedTeachers(const TeacherJob& job, const std::string& train,
                               const std::map<std::string, std::string>& preprocessing) {
  std::map<std::string, std::string> said = preprocessing;
  said.insert(job.preprocessing.begin(), job.preprocessing.end());
  for (std::size_t i = 0; i < job.models.size(); ++i) {
    in_context([&] { return fmt::format("--teacher '{}'", job.models[i]); },
               [&] {
                 LoadedModel loaded = load_model(job.models[i], DeflatedSize::off);
                 if (const std::string changed = set_inference_form(*loaded.model); !changed.empty())
                   notes_.push_back(fmt::format("teacher '{}' {}", job.models[i], changed));
                 require_inference_form(*loaded.model);
                 require_engine_runs(*loaded.model);
                 warnings_.insert(warnings_.end(), loaded.warnings.begin(), loaded.warnings.end());
                 DataOptions options = job.data_options;
                 options.labels.clear();
                 data_.push_back(open_data(train, *loaded.model, options));
                 hashes_.push_back(loaded.file.sha256);
                 models_.push_back(std::move(loaded.model));
               });
    sources_.push_back({.name = job.models[i],
                        .model = models_.back().get(),
                        .data = data_.back().get(),
                        .preprocessing = joined_text(said),
                        .reads_otherwise = job.reads_otherwise,
                        .weight = job.weights.empty() ? 1 : job.weights[i]});
  }
}

Json LoadedTeachers::section() const {
  Json list = Json::array();
  for (std::size_t i = 0; i < sources_.size(); ++i)
    list.push_back({{"path", sources_[i].name}, {"sha256", hashes_[i]}, {"weight", sources_[i].weight}});
  return list;
}

}  // namespace onnxpress
