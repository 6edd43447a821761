#include "graph/kernels/onednn_threads.h"

// From libgomp, which oneDNN runs on; <omp.h> needs a compiler with OpenMP.
extern "C" void omp_set_num_threads(int threads);
extern "C" int omp_get_max_threads();

namespace onnxpress {

void set_onednn_threads(int threads) { omp_set_num_threads(threads); }

int onednn_threads() { return omp_get_max_threads(); }

}  // namespace onnxpress
