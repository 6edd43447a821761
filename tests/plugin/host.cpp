// Loads a plugin and runs a pipeline with it on a small model: prints the model, or the error.
#include <cstdio>

#include "graph/ir/parse.h"
#include "passes/core/registry.h"
#include "passes/core/runner.h"

int main(int argc, char** argv) {
  using namespace onnxpress;
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s PLUGIN PIPELINE\n", argv[0]);
    return 2;
  }
  try {
    load_plugin(argv[1]);
    const Pipeline pipeline = Pipeline::parse(argv[2]);
    const RunResult result = run_pipeline(parse_model(R"(model ir=8 opset=17
input x: float32[2]
a: float32[2] = Relu(x)
y: float32[2] = Relu(a)
output y: float32[2]
)"),
                                          pipeline, {.threads = 1});
    for (const PassRecord& record : result.passes)
      std::printf("%s changed=%d failure='%s' counts=%s\n", record.text.c_str(), record.changed,
                  record.failure.c_str(), record.outcome.counts.dump().c_str());
    std::printf("%s", to_text(*result.model).c_str());
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
