// Threads of oneDNN, without its headers.
#pragma once

namespace onnxpress {

// Threads that oneDNN (OpenMP on libgomp) uses for primitives made and executed from the calling
// thread: 1 for each worker of batch-parallel work.
void set_onednn_threads(int threads);

}  // namespace onnxpress
