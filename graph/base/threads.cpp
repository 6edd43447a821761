#include "graph/base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <exception>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

// From libgomp, by name: <omp.h> and pragmas need a compiler with OpenMP of that very runtime.
extern "C" {
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
int omp_get_thread_num();
}

namespace onnxpress {

namespace {

thread_local int current_worker = 0;
thread_local bool inside_parallel_for = false;

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// CPUs of a "quota period" pair; nothing when there is no limit ("max", -1, or no such file).
std::optional<int> quota_cpus(const std::string& text) {
  std::istringstream stream(text);
  double quota = 0, period = 0;
  if (!(stream >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  return static_cast<int>(std::clamp(std::ceil(quota / period), 1.0, 1e6));
}

// The least limit of `group` and its parents up to the mount point; `read` gives "quota period".
template <class Read>
int least_limit(const std::filesystem::path& mount, const std::string& group, Read&& read) {
  int least = 0;
  std::filesystem::path relative = std::filesystem::path(group).relative_path();
  while (true) {
    if (const auto limit = quota_cpus(read(mount / relative)))
      least = least == 0 ? *limit : std::min(least, *limit);
    if (relative.empty()) return least;
    relative = relative.parent_path();
  }
}

bool lists_controller(const std::string& controllers, const std::string& wanted) {
  return ("," + controllers + ",").find("," + wanted + ",") != std::string::npos;
}

int affinity_cpus() {
  for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(capacity));
    std::vector<unsigned long> mask(bytes / sizeof(unsigned long));
    auto* set = reinterpret_cast<cpu_set_t*>(mask.data());
    if (sched_getaffinity(0, bytes, set) == 0) return CPU_COUNT_S(bytes, set);
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int cgroup_cpu_limit(const std::string& membership, const std::filesystem::path& mount) {
  int least = 0;
  const auto lower = [&least](int limit) {
    if (limit > 0) least = least == 0 ? limit : std::min(least, limit);
  };
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // "hierarchy:controllers:path"
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      const auto read = [](const auto& folder) { return read_text(folder / "cpu.max"); };
      lower(least_limit(mount, group, read));
      lower(least_limit(mount / "unified", group, read));
    } else if (lists_controller(controllers, "cpu")) {
      const auto read = [](const auto& folder) {
        return read_text(folder / "cpu.cfs_quota_us") + " " +
               read_text(folder / "cpu.cfs_period_us");
      };
      lower(least_limit(mount / "cpu", group, read));
      lower(least_limit(mount / controllers, group, read));
    }
  }
  return least;
}

int available_cpus() {
  const int cpus = std::max(1, affinity_cpus());
  const int limit = cgroup_cpu_limit(read_text("/proc/self/cgroup"), "/sys/fs/cgroup");
  return limit > 0 ? std::min(cpus, limit) : cpus;
}

namespace {

using Body = std::function<void(std::int64_t begin, std::int64_t end)>;

// One parallel_for: blocks are claimed in increasing order, so when a block throws, all lower
// ones have been claimed and will finish.
class Job {
 public:
  Job(std::int64_t count, std::int64_t block, const Body& body)
      : count_(count), block_(block), blocks_((count - 1) / block + 1), body_(body) {}

  std::int64_t blocks() const { return blocks_; }

  void work() {
    while (!failed_.load(std::memory_order_relaxed)) {
      const std::int64_t index = next_.fetch_add(1, std::memory_order_relaxed);
      if (index >= blocks_) return;
      try {
        const std::int64_t begin = index * block_;
        body_(begin, begin + std::min(block_, count_ - begin));
      } catch (...) {
        const std::lock_guard lock(mutex_);
        failed_.store(true, std::memory_order_relaxed);
        if (!exception_ || index < failed_block_) {
          exception_ = std::current_exception();
          failed_block_ = index;
        }
      }
    }
  }

  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  const std::int64_t count_;
  const std::int64_t block_;
  const std::int64_t blocks_;
  const Body& body_;
  std::atomic<std::int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::exception_ptr exception_;
  std::int64_t failed_block_ = 0;
};

// Marks the calling thread as inside a parallel_for, as the worker of that number.
class InsideScope {
 public:
  explicit InsideScope(int worker) : outer_(current_worker) {
    inside_parallel_for = true;
    current_worker = worker;
  }
  ~InsideScope() {
    inside_parallel_for = false;
    current_worker = outer_;
  }
  InsideScope(const InsideScope&) = delete;
  InsideScope& operator=(const InsideScope&) = delete;

 private:
  int outer_;
};

void work_in_team(void* job) {
  const InsideScope scope(omp_get_thread_num());
  static_cast<Job*>(job)->work();
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(threads) { assert(threads >= 1); }

int ThreadPool::worker_index() { return current_worker; }

void ThreadPool::parallel_for(std::int64_t count, std::int64_t block, const Body& body) {
  assert(block > 0);
  if (count <= 0) return;
  Job job(count, block, body);
  const auto team = std::min<std::int64_t>(job.blocks(), threads_);
  if (inside_parallel_for || team == 1)
    job.work();
  else
    GOMP_parallel(work_in_team, &job, static_cast<unsigned>(team), 0);
  job.rethrow();
}

}  // namespace onnxpress
