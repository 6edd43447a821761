#include "graph/base/threads.h"

#include <doctest/doctest.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using onnxpress::cgroup_cpu_limit;
using onnxpress::ThreadPool;
namespace fs = std::filesystem;

namespace {

class CgroupTree {
 public:
  CgroupTree() {
    std::string name = (fs::temp_directory_path() / "onnxpress-cgroup-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  ~CgroupTree() { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  int limit(const std::string& membership) const { return cgroup_cpu_limit(membership, root_); }

 private:
  fs::path root_;
};

}  // namespace

TEST_CASE("cgroup v2 quotas: rounded up, the least on the way to the root counts") {
  const CgroupTree tree;
  CHECK(tree.limit("0::/\n") == 0);
  CHECK(tree.limit("") == 0);
  CHECK(tree.limit("garbage\n:\n0:\n") == 0);
  tree.write("cpu.max", "max 100000\n");
  CHECK(tree.limit("0::/\n") == 0);
  tree.write("a/cpu.max", "350000 100000\n");
  tree.write("a/b/cpu.max", "800000 100000\n");
  tree.write("a/b/c/cpu.max", "max 100000\n");
  CHECK(tree.limit("0::/a/b/c\n") == 4);
  CHECK(tree.limit("0::/a\n") == 4);
  CHECK(tree.limit("0::/other\n") == 0);
  tree.write("cpu.max", "1000 100000\n");
  CHECK(tree.limit("0::/a/b/c\n") == 1);
  CHECK(tree.limit("0::/not/mounted/here\n") == 1);
}

TEST_CASE("cgroup v1 quotas, also beside an empty v2 hierarchy") {
  const CgroupTree tree;
  const std::string membership = "4:memory:/x\n3:cpu,cpuacct:/docker/1\n2:cpuset:/y\n0::/z\n";
  CHECK(tree.limit(membership) == 0);
  tree.write("cpu/docker/1/cpu.cfs_quota_us", "-1\n");
  tree.write("cpu/docker/1/cpu.cfs_period_us", "100000\n");
  CHECK(tree.limit(membership) == 0);
  tree.write("cpu,cpuacct/cpu.cfs_quota_us", "150000\n");
  tree.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  CHECK(tree.limit(membership) == 2);
  tree.write("unified/z/cpu.max", "100000 100000\n");
  CHECK(tree.limit(membership) == 1);
}

TEST_CASE("available_cpus follows the affinity mask") {
  CHECK(onnxpress::available_cpus() >= 1);
  cpu_set_t before;
  REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu)
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(onnxpress::available_cpus() == 1);
  REQUIRE(::sched_setaffinity(0, sizeof before, &before) == 0);
}

TEST_CASE("every index is visited once, in blocks of the same bounds for any thread count") {
  std::set<std::pair<std::int64_t, std::int64_t>> expected;
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.size() == threads);
    for (const std::int64_t count : {0, 1, 7, 8, 1000}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      std::mutex mutex;
      std::set<std::pair<std::int64_t, std::int64_t>> blocks;
      pool.parallel_for(count, 7, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
        const std::lock_guard lock(mutex);
        blocks.emplace(begin, end);
      });
      for (const auto& visit : visits) CHECK(visit == 1);
      CHECK(blocks.size() == static_cast<std::size_t>((count + 6) / 7));
      for (const auto& [begin, end] : blocks) {
        CHECK(begin % 7 == 0);
        CHECK(end == std::min(begin + 7, count));
      }
    }
  }
}

TEST_CASE("workers take part and have different indices") {
  ThreadPool pool(3);
  std::mutex mutex;
  std::set<int> indices;
  std::set<std::thread::id> threads;
  std::atomic<int> waiting{0};
  pool.parallel_for(3, 1, [&](std::int64_t, std::int64_t) {
    ++waiting;
    while (waiting < 3) std::this_thread::yield();  // holds all three threads in a block
    const std::lock_guard lock(mutex);
    indices.insert(ThreadPool::worker_index());
    threads.insert(std::this_thread::get_id());
  });
  CHECK(indices == std::set{0, 1, 2});
  CHECK(threads.size() == 3);
  CHECK(ThreadPool::worker_index() == 0);
}

TEST_CASE("nested calls run inline, on the thread that makes them") {
  ThreadPool pool(4);
  std::atomic<int> sum{0};
  std::atomic<int> moved{0};
  pool.parallel_for(16, 1, [&](std::int64_t, std::int64_t) {
    const auto thread = std::this_thread::get_id();
    const int index = ThreadPool::worker_index();
    pool.parallel_for(10, 3, [&](std::int64_t begin, std::int64_t end) {
      sum += static_cast<int>(end - begin);
      moved += std::this_thread::get_id() != thread || ThreadPool::worker_index() != index;
    });
  });
  CHECK(sum == 160);
  CHECK(moved == 0);
}

TEST_CASE("the exception of the lowest block is rethrown and the pool stays usable") {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 100; ++round) {
      try {
        pool.parallel_for(64, 1, [&](std::int64_t begin, std::int64_t) {
          if (begin == 5) std::this_thread::sleep_for(std::chrono::microseconds(200));
          if (begin >= 5) throw std::runtime_error(std::to_string(begin));
        });
        FAIL("nothing was thrown");
      } catch (const std::runtime_error& error) {
        REQUIRE(error.what() == std::string("5"));
      }
    }
    std::atomic<int> count{0};
    pool.parallel_for(100, 1, [&](std::int64_t, std::int64_t) { ++count; });
    CHECK(count == 100);
  }
}

TEST_CASE("an exception of a nested call leaves through the outer one") {
  ThreadPool pool(2);
  const auto nested = [&](std::int64_t, std::int64_t) {
    pool.parallel_for(4, 1, [](std::int64_t begin, std::int64_t) {
      if (begin == 2) throw std::runtime_error("inner");
    });
  };
  CHECK_THROWS_WITH_AS(pool.parallel_for(4, 1, nested), "inner", std::runtime_error);
}

TEST_CASE("one pool serves several owners and many short calls") {
  ThreadPool pool(3);
  std::atomic<std::int64_t> sum{0};
  const auto owner = [&] {
    for (int round = 0; round < 2000; ++round)
      pool.parallel_for(8, 1, [&](std::int64_t begin, std::int64_t) { sum += begin; });
  };
  std::thread other(owner);
  owner();
  other.join();
  CHECK(sum == 2 * 2000 * 28);
}
