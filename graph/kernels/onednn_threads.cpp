#include "graph/kernels/onednn_threads.h"

// From libgomp, which oneDNN runs on; <omp.h> needs a compiler with OpenMP.
extern "C" void omp_set_num_threads(int threads);

namespace onnxpress {

void set_onednn_threads(int threads) { omp_set_num_threads(threads); }

}  // namespace onnxpress
