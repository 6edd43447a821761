#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <string>
#include <thread>

#include "graph/base/error.h"
#include "graph/base/files.h"
#include "graph/base/random.h"
#include "tests/graph/base/temporary_folder.h"

using onnxpress::Error;
using onnxpress::StagedFiles;
namespace fs = std::filesystem;
using Names = std::set<std::string>;

namespace {

auto filling(std::string text) {
  return [text = std::move(text)](StagedFiles::Sink& sink) {
    sink.write(std::as_bytes(std::span(text)));
  };
}

void write_one(const fs::path& target, const std::string& text) {
  StagedFiles staged;
  staged.add(target, filling(text));
  staged.commit();
}

std::string error_of(const fs::path& target) {
  try {
    write_one(target, "text");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

unsigned mode_of(const fs::path& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

// Runs `body` in a child process and returns its exit status.
template <class Body>
int in_child(Body&& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(body());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// From here on, this process cannot make nameless files, as on file systems without O_TMPFILE.
bool refuse_nameless_files() {
  constexpr unsigned nameless = O_TMPFILE & ~O_DIRECTORY;
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),  // little-endian
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, nameless, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{std::size(program), program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0 &&
         ::open("/tmp", O_TMPFILE | O_WRONLY, 0600) == -1 && errno == EOPNOTSUPP;
}

}  // namespace

TEST_CASE("outputs appear together at commit, and only then") {
  const TemporaryFolder folder;
  folder.write("old", "before");
  StagedFiles staged;
  staged.add(folder / "old", filling("after"));
  staged.add(folder / "new", filling("new"));
  CHECK(folder.read("old") == "before");
  CHECK_FALSE(fs::exists(folder / "new"));
  staged.commit();
  CHECK(folder.read("old") == "after");
  CHECK(folder.read("new") == "new");
  CHECK(folder.names() == Names{"old", "new"});
}

TEST_CASE("without commit nothing is left or changed") {
  const TemporaryFolder folder;
  folder.write("old", "before");
  {
    StagedFiles staged;
    staged.add(folder / "old", filling("after"));
    staged.add(folder / "new", filling("new"));
    staged.remove_after(folder / "old");
  }
  CHECK(folder.read("old") == "before");
  CHECK(folder.names() == Names{"old"});
}

TEST_CASE("an output whose filling fails is dropped, the others are kept") {
  const TemporaryFolder folder;
  StagedFiles staged;
  staged.add(folder / "good", filling("good"));
  const auto fill = [](StagedFiles::Sink& sink) {
    sink.write(std::as_bytes(std::span("half", 4)));
    onnxpress::fail("no more");
  };
  CHECK_THROWS_WITH_AS(staged.add(folder / "bad", fill), "no more", Error);
  staged.commit();
  CHECK(folder.names() == Names{"good"});
}

TEST_CASE("writes of all sizes arrive in order") {
  const TemporaryFolder folder;
  std::string expected;
  onnxpress::Random random(1);
  StagedFiles staged;
  staged.add(folder / "out", [&](StagedFiles::Sink& sink) {
    for (const std::size_t size : {0, 1, 1000, 262143, 262144, 262145, 3, 80 << 20, 5, 100000}) {
      std::string piece(size, static_cast<char>(random.next()));
      if (size > 0) piece.back() = '.';
      sink.write(std::as_bytes(std::span(piece)));
      expected += piece;
    }
  });
  staged.commit();
  CHECK((folder.read("out") == expected));
}

TEST_CASE("a replaced file keeps its mode, a new one follows the umask") {
  const TemporaryFolder folder;
  folder.write("old", "before");
  REQUIRE(::chmod((folder / "old").c_str(), 0640) == 0);
  const mode_t before = ::umask(0027);
  write_one(folder / "old", "after");
  write_one(folder / "new", "new");
  ::umask(before);
  CHECK(mode_of(folder / "old") == 0640);
  CHECK(mode_of(folder / "new") == 0640);
  REQUIRE(::chmod((folder / "old").c_str(), 0606) == 0);
  write_one(folder / "old", "again");
  CHECK(mode_of(folder / "old") == 0606);
}

TEST_CASE("a link is written through, also when it points to nothing yet") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "sub");
  folder.write("sub/real", "before");
  fs::create_symlink("sub/real", folder / "link");
  fs::create_symlink("link", folder / "link2");
  fs::create_symlink("sub/later", folder / "dangling");
  write_one(folder / "link2", "after");
  write_one(folder / "dangling", "later");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(fs::is_symlink(folder / "link2"));
  CHECK(fs::is_symlink(folder / "dangling"));
  CHECK(folder.read("sub/real") == "after");
  CHECK(folder.read("sub/later") == "later");
}

TEST_CASE("targets that cannot be written are named") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "sub");
  folder.write("file", "text");
  fs::create_symlink("loop", folder / "loop");
  const auto path = [&](const std::string& name) { return (folder / name).string(); };
  CHECK(error_of(path("sub")) == "cannot write " + path("sub") + ": Is a directory");
  CHECK(error_of(path("sub/")) == "cannot write " + path("sub/") + ": Is a directory");
  CHECK(error_of(path("none/")) == "cannot write " + path("none/") + ": Is a directory");
  CHECK(error_of(path("none/out")) == "cannot write " + path("none/out") + ": folder " +
                                          path("none") + ": No such file or directory");
  CHECK(error_of(path("file/out")) == "cannot write " + path("file/out") + ": Not a directory");
  CHECK(error_of(path("loop")) ==
        "cannot write " + path("loop") + ": Too many levels of symbolic links");
  CHECK(error_of("") == "cannot write : Is a directory");
  CHECK(folder.names() == Names{"sub", "file", "loop"});
}

TEST_CASE("read-only files and folders are refused") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "sub");
  folder.write("sub/file", "text");
  const std::string file = folder / "sub/file";
  const std::string other = folder / "sub/other";
  REQUIRE(::chmod((folder / "").c_str(), 0755) == 0);
  REQUIRE(::chmod(file.c_str(), 0444) == 0);
  const auto refused = [&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return 2;  // root may write everywhere
    if (error_of(file) != "cannot write " + file + ": Permission denied") return 3;
    if (error_of(other) != "cannot write " + other + ": Permission denied") return 4;
    return 0;
  };
  REQUIRE(::chmod((folder / "sub").c_str(), 0555) == 0);
  CHECK(in_child(refused) == 0);
  REQUIRE(::chmod((folder / "sub").c_str(), 0755) == 0);
}

TEST_CASE("devices and FIFOs are written to, not replaced") {
  const TemporaryFolder folder;
  const std::string fifo = folder / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  std::string received;
  std::thread reader([&] {
    std::ifstream file(fifo);
    received.assign(std::istreambuf_iterator<char>(file), {});
  });
  StagedFiles staged;
  staged.add(fifo, filling(std::string(300000, 'f')));
  staged.add("/dev/null", filling("gone"));
  staged.add("/dev/null", filling("gone too"));
  staged.commit();
  reader.join();
  CHECK((received == std::string(300000, 'f')));
  CHECK(fs::is_fifo(fifo));
  CHECK(fs::is_character_file("/dev/null"));
}

TEST_CASE("a full device fails before any file is replaced") {
  const TemporaryFolder folder;
  folder.write("out", "before");
  StagedFiles staged;
  staged.add(folder / "out", filling("after"));
  staged.add("/dev/full", filling("text"));
  CHECK_THROWS_WITH_AS(staged.commit(), "cannot write /dev/full: No space left on device", Error);
  CHECK(folder.read("out") == "before");
  CHECK(folder.names() == Names{"out"});
}

TEST_CASE("a full disk leaves the old file and no other") {
  const TemporaryFolder folder;
  folder.write("out", "before");
  const std::string out = folder / "out";
  const auto overfill = [&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    try {
      StagedFiles staged;
      staged.add(out, filling(std::string(2 << 20, 'x')));
      staged.commit();
    } catch (const Error& error) {
      return error.what() == "cannot write " + out + ": File too large" ? 0 : 3;
    }
    return 4;
  };
  CHECK(in_child(overfill) == 0);
  CHECK(folder.read("out") == "before");
  CHECK(folder.names() == Names{"out"});
}

TEST_CASE("two outputs of the same name are refused, however it is spelled") {
  const TemporaryFolder folder;
  fs::create_symlink("out", folder / "link");
  StagedFiles staged;
  staged.add(folder / "out", filling("1"));
  CHECK_THROWS_AS(staged.add(folder / "./out", filling("2")), Error);
  CHECK_THROWS_AS(staged.add(folder / "link", filling("2")), Error);
  staged.commit();
  CHECK(folder.read("out") == "1");
}

TEST_CASE("old files are removed after the new ones are in place, but never an output") {
  const TemporaryFolder folder;
  folder.write("data-old", "1");
  folder.write("data-same", "2");
  StagedFiles staged;
  staged.add(folder / "data-same", filling("2"));
  staged.add(folder / "model", filling("3"));
  staged.remove_after(folder / "data-old");
  staged.remove_after(folder / "./data-same");
  staged.remove_after(folder / "was-never-there");
  staged.remove_after(folder / "no-folder/file");
  staged.commit();
  CHECK(folder.names() == Names{"data-same", "model"});
}

TEST_CASE("staged files serve again after a commit") {
  const TemporaryFolder folder;
  StagedFiles staged;
  staged.add(folder / "a", filling("1"));
  staged.commit();
  staged.add(folder / "a", filling("2"));
  staged.commit();
  CHECK(folder.read("a") == "2");
  staged.commit();
  CHECK(folder.names() == Names{"a"});
}

TEST_CASE("file systems without nameless files get hidden temporary ones") {
  const TemporaryFolder folder;
  folder.write("old", "before");
  REQUIRE(::chmod((folder / "old").c_str(), 0604) == 0);
  const auto stage = [&](bool commit) {
    if (!refuse_nameless_files()) return 2;
    StagedFiles staged;
    staged.add(folder / "old", filling("after"));
    staged.add(folder / "new", filling("new"));
    staged.add("/dev/null", filling("gone"));
    const Names names = folder.names();
    if (names.size() != 3 || names.count("new") != 0) return 3;
    for (const std::string& name : names) {
      const bool is_temporary =
          name.starts_with(".old.onnxpress-") || name.starts_with(".new.onnxpress-");
      if (name != "old" && !is_temporary) return 4;
    }
    if (commit) staged.commit();
    return 0;
  };
  CHECK(in_child([&] { return stage(false); }) == 0);
  CHECK(folder.names() == Names{"old"});
  CHECK(folder.read("old") == "before");
  CHECK(in_child([&] { return stage(true); }) == 0);
  CHECK(folder.names() == Names{"old", "new"});
  CHECK(folder.read("old") == "after");
  CHECK(folder.read("new") == "new");
  CHECK(mode_of(folder / "old") == 0604);
}

TEST_CASE("long names leave room for the temporary name") {
  const TemporaryFolder folder;
  const std::string name(255, 'n');
  folder.write(name, "before");
  write_one(folder / name, "after");
  CHECK(folder.read(name) == "after");
  CHECK(folder.names() == Names{name});
}

TEST_CASE("a process killed at any moment leaves the old output or the new one, whole") {
  const TemporaryFolder folder;
  const std::string before(3 << 20, 'o');
  const std::string after(3 << 20, 'n');
  folder.write("out", before);
  onnxpress::Random random(static_cast<std::uint64_t>(::getpid()));
  int killed = 0, finished = 0;
  for (int round = 0; round < 60; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      write_one(folder / "out", round % 2 == 0 ? after : before);
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(12000)));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    ++(WIFSIGNALED(status) ? killed : finished);
    const std::string found = folder.read("out");
    REQUIRE((found == before || found == after));
    REQUIRE(folder.names().count("out") == 1);
  }
  MESSAGE(killed << " killed, " << finished << " finished");
}
