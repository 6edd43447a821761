// The one thread pool of onnxpress.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace onnxpress {

// CPUs this process may use: affinity mask and cgroup (v1 and v2) quota, at least 1.
int available_cpus();
// The CPU quota, rounded up, that cgroups under `mount` (/sys/fs/cgroup) put on a process whose
// /proc/self/cgroup reads `membership`; 0 when there is none.
int cgroup_cpu_limit(const std::string& membership, const std::filesystem::path& mount);

// Workers that run blocks of a range: a team of the OpenMP runtime that oneDNN runs on, so that the
// two never compete for a core. Calls from inside a worker run inline, so nesting is safe.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // >= 1; the caller's thread counts as one

  int size() const { return threads_; }
  // Calls body(begin, end) over [0, count) in blocks of exactly `block` (the last one shorter),
  // so that what a block computes does not depend on the thread count. Returns when all are done;
  // rethrows the first exception (of the lowest block).
  void parallel_for(std::int64_t count, std::int64_t block,
                    const std::function<void(std::int64_t begin, std::int64_t end)>& body);
  // Index of the calling worker within this pool, 0 for the owner's thread.
  static int worker_index();

 private:
  int threads_;
};

}  // namespace onnxpress
