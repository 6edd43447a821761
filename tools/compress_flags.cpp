#include "tools/compress_flags.h"

#include <algorithm>

namespace onnxpress {

void CompressFlags::declare_output(CLI::App& app, CompressJob& job) {
  const std::string group = "Output";
  app.add_option("-o,--output", job.output, "the model to write; IN itself is fine")
      ->type_name("OUT")
      ->group(group);
  app.add_option("--report", job.reports, "also write the report: .json, .md or .txt; repeatable")
      ->type_name("FILE")
      ->group(group);
  app.add_flag("--write-anyway", job.write_anyway, "write the model even with status 1")
      ->group(group);
  app.add_option(
         "--external-data", external_,
         "tensors in a file of their own: auto (as in IN; always over 2 GB), never, always")
      ->type_name("auto|never|always")
      ->group(group);
  app.add_flag("--keep-overridable", job.keep_overridable,
               "leave initializers that are also inputs overridable")
      ->group(group);
  deflated_.declare(app);
  app.get_option("--deflated")->group(group);
}

void CompressFlags::declare_data(CLI::App& app, CompressJob& job) {
  const std::string group = "Data";
  app.add_option("--eval", job.eval,
                 "samples that outputs and, with labels, accuracy are measured on")
      ->type_name("DATA")
      ->group(group);
  app.add_option("--calib", job.calib, "samples for passes that need calibration")
      ->type_name("DATA")
      ->group(group);
  app.add_option("--calib-cache", job.calib_cache,
                 "keep what was seen of the samples in a file, and use it instead of running the model again")
      ->type_name("FILE")
      ->group(group);
  training_.declare(app);
  app.add_option(
         "--attribution", attribution_,
         "evaluate after every pass: auto (where one evaluation takes under 30 s), on, off")
      ->type_name("auto|on|off")
      ->group(group);
  metric_.declare(app);
  data_.declare(app);
  gates_.declare(app, "--eval");
  app.add_flag("--require-verified", job.require_verified,
               "status 1 when the engine cannot run the model to compare outputs")
      ->group(app.get_option("--max-drop")->get_group());
}

void CompressFlags::fill(CompressJob& job, const Session& session) const {
  job.limits = gates_.limits();
  gates_.require_data(!job.eval.empty());
  require(!job.pipeline.needs(Needs::calibration) || !job.calib.empty(),
          "the pipeline has a pass that needs calibration data: give --calib DATA");
  require(job.calib_cache.empty() || !job.calib.empty(), "--calib-cache: expected --calib DATA, found none");
  job.training = training_.job();
  require(job.training.log != "-" || job.output != "-",
          "--log -: expected another file: standard output takes the model (-o -)");
  const bool trains_any = std::ranges::any_of(job.pipeline.steps, trains);
  require(!trains_any || !job.training.data.empty(), "the pipeline has a pass that trains: give --train DATA");
  require(trains_any || job.training.data.empty(), "--train: no pass of the pipeline trains");
  job.metric = metric_.metric();
  job.data_options = data_.options();
  job.teacher = teacher_.job(job.data_options);
  const bool distills = job.pipeline.needs(Needs::teacher);
  require(distills || job.teacher.models.empty(), "--teacher: no pass of the pipeline has a teacher");
  require(distills || job.teacher.cache.empty(), "--teacher-cache: no pass of the pipeline has a teacher");
  job.ranges = data_.ranges();
  job.shapes = data_.shapes().shapes();
  job.preprocessing = data_.said();
  job.deflated = deflated_.size();
  if (job.deflated == DeflatedSize::automatic && !session.prints() && job.reports.empty())
    job.deflated = DeflatedSize::off;  // nobody would read it
  job.external = choose<ExternalData>("--external-data", external_,
                                      {{"auto", ExternalData::as_read},
                                       {"never", ExternalData::never},
                                       {"always", ExternalData::always}});
  job.attribution = choose<Attribution>(
      "--attribution", attribution_,
      {{"auto", Attribution::automatic}, {"on", Attribution::on}, {"off", Attribution::off}});
}

}  // namespace onnxpress
