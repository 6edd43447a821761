#include "tests/tools/command.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <stdexcept>

namespace onnxpress {

namespace {

struct Pipe {
  std::array<int, 2> ends{-1, -1};
  Pipe() {
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  }
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  void close_end(std::size_t i) {
    if (ends[i] >= 0) ::close(ends[i]);
    ends[i] = -1;
  }
};

[[noreturn]] void become(const std::vector<std::string>& arguments, const CommandOptions& options,
                         const Pipe& in, const Pipe& out, const Pipe& err) {
  dup2(in.ends[0], STDIN_FILENO);
  const int target =
      options.out_path.empty() ? out.ends[1] : open(options.out_path.c_str(), O_WRONLY);
  dup2(target, STDOUT_FILENO);
  dup2(err.ends[1], STDERR_FILENO);
  if (!options.folder.empty() && chdir(options.folder.c_str()) != 0) _exit(126);
  if (options.file_size) {
    const rlimit limit{*options.file_size, *options.file_size};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  setenv("NO_COLOR", "1", 1);
  setenv("LC_ALL", "C", 1);
  std::vector<char*> argv;
  std::string program = ONNXPRESS_BINARY;
  argv.push_back(program.data());
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(ONNXPRESS_BINARY, argv.data());
  _exit(127);
}

}  // namespace

CommandResult run_onnxpress(const std::vector<std::string>& arguments,
                            const CommandOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);
  Pipe in, out, err;
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    std::signal(SIGPIPE, SIG_DFL);
    become(arguments, options, in, out, err);
  }
  in.close_end(0);
  out.close_end(1);
  err.close_end(1);
  if (options.close_output) out.close_end(0);
  if (options.kill_after_us) {
    usleep(static_cast<useconds_t>(*options.kill_after_us));
    kill(child, SIGKILL);
  }

  CommandResult result;
  std::size_t sent = 0;
  if (options.input.empty()) in.close_end(1);
  if (in.ends[1] >= 0) fcntl(in.ends[1], F_SETFL, O_NONBLOCK);
  while (out.ends[0] >= 0 || err.ends[0] >= 0) {
    std::array<pollfd, 3> waiting{
        {{in.ends[1], POLLOUT, 0}, {out.ends[0], POLLIN, 0}, {err.ends[0], POLLIN, 0}}};
    if (poll(waiting.data(), waiting.size(), -1) < 0) break;
    if (waiting[0].revents != 0) {
      const ssize_t written =
          write(in.ends[1], options.input.data() + sent, options.input.size() - sent);
      if (written > 0) sent += static_cast<std::size_t>(written);
      if (written < 0 || sent == options.input.size()) in.close_end(1);
    }
    const auto drain = [](const pollfd& ready, Pipe& from, std::string& text) {
      if (ready.fd < 0 || ready.revents == 0) return;
      std::array<char, 65536> buffer;
      const ssize_t got = read(ready.fd, buffer.data(), buffer.size());
      if (got > 0)
        text.append(buffer.data(), static_cast<std::size_t>(got));
      else
        from.close_end(0);
    };
    drain(waiting[1], out, result.out);
    drain(waiting[2], err, result.err);
  }
  int status = 0;
  waitpid(child, &status, 0);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace onnxpress
