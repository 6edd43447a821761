#include "passes/core/reproducer.h"

#include "graph/base/files.h"
#include "graph/onnx/writer.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

fs::path make_folder(const fs::path& parent, const std::string& name) {
  std::error_code error;
  fs::create_directories(parent, error);
  require(!error, "cannot make folder '{}': {}", parent.string(), error.message());
  fs::path folder = parent / name;
  for (int number = 2; !fs::create_directory(folder, error); ++number) {
    require(!error, "cannot make folder '{}': {}", folder.string(), error.message());
    folder = parent / fmt::format("{}-{}", name, number);
  }
  return folder;
}

void add_text(StagedFiles& staged, const fs::path& path, const std::string& text) {
  staged.add(path, [&](StagedFiles::Sink& sink) { sink.write(std::as_bytes(std::span(text))); });
}

std::string readme(const Reproducer& reproducer) {
  std::string text = fmt::format(
      "A step of an onnxpress pipeline was rolled back. Run it again, in this folder, with:\n\n"
      "  onnxpress compress model.onnx -o out.onnx --passes \"$(cat step.txt)\" --seed {}\n\n",
      reproducer.seed);
  if (!reproducer.data.empty())
    text += fmt::format("The step was also given data, which is not in this folder: {}\n",
                        reproducer.data);
  return text +
         "error.txt has what went wrong, test_data_set_* the inputs that outputs were compared "
         "on.\n";
}

void stage(const Reproducer& reproducer, const fs::path& folder) {
  StagedFiles staged;
  stage_model(*reproducer.model, folder / "model.onnx", staged);
  add_text(staged, folder / "step.txt", reproducer.step + "\n");
  add_text(staged, folder / "seed.txt", fmt::format("{}\n", reproducer.seed));
  add_text(staged, folder / "error.txt", reproducer.failure + "\n");
  add_text(staged, folder / "README", readme(reproducer));
  const std::vector<Value*> inputs = reproducer.model->required_inputs();
  for (std::size_t set = 0; set < reproducer.probes->size(); ++set) {
    const fs::path set_folder = make_folder(folder, fmt::format("test_data_set_{}", set));
    const std::vector<Tensor>& tensors = (*reproducer.probes)[set];
    for (std::size_t i = 0; i < tensors.size(); ++i)
      add_text(staged, set_folder / fmt::format("input_{}.pb", i),
               tensor_to_bytes(tensors[i], i < inputs.size() ? inputs[i]->name() : ""));
  }
  staged.commit();
}

}  // namespace

fs::path write_reproducer(const Reproducer& reproducer, const fs::path& parent) {
  const fs::path folder = make_folder(parent, reproducer.name);
  try {
    in_context([&] { return fmt::format("writing reproducer '{}'", folder.string()); },
               [&] { stage(reproducer, folder); });
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    throw;
  }
  return folder;
}

}  // namespace onnxpress
