#include "tools/cli.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <clocale>
#include <csignal>
#include <cstring>
#include <limits>
#include <new>
#include <optional>

#include "graph/base/error.h"
#include "passes/core/registry.h"
#include "tools/environment.h"
#include "tools/flags.h"
#include "tools/terminal.h"
#include "tools/verb.h"

namespace onnxpress {

namespace {

// Only async-signal-safe calls: the mapped file may have been cut off anywhere.
void on_bus_error(int) {
  constexpr char text[] = "onnxpress: error: an input file became shorter while it was read\n";
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, text, sizeof text - 1);
  _exit(status_failed);
}

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_bus_error;
  sigaction(SIGBUS, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // a write then fails with EPIPE
  std::signal(SIGXFSZ, SIG_IGN);  // a write past RLIMIT_FSIZE then fails with EFBIG
}

void report_error(const std::string& text) {
  const std::string line = message_line("error: " + text);
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, line.data(), line.size());
}

struct GlobalFlags {
  std::string format, threads, seed;
  bool quiet = false, verbose = false, version = false;
  std::vector<std::string> plugins;

  void declare(CLI::App& app) {
    app.add_option("--format", format, "what results look like on standard output (table)")
        ->type_name("table|json|md");
    app.add_flag("--quiet", quiet,
                 "no messages but errors, and no results unless --format is given");
    app.add_flag("--verbose", verbose, "tell every stage; full tables");
    app.add_option("--threads", threads, "threads to use (all that this process may use)")
        ->type_name("N");
    app.add_option("--seed", seed, "seed of everything random (0)")->type_name("N");
    app.add_option("--plugin", plugins, "load passes from a shared library; repeatable")
        ->type_name("FILE");
    app.add_flag("--version", version, "print the version");
  }

  Session::Settings settings() const {
    Session::Settings result;
    result.format_given = !format.empty();
    if (result.format_given) result.format = format_from_name(format);
    result.quiet = quiet;
    result.verbose = verbose;
    result.plugins = plugins;
    if (!threads.empty())
      result.threads = static_cast<int>(parse_integer("--threads", threads, 1, 4096));
    if (!seed.empty())
      result.seed = static_cast<std::uint64_t>(
          parse_integer("--seed", seed, 0, std::numeric_limits<std::int64_t>::max()));
    return result;
  }
};

class Command {
 public:
  Command() : app_("onnxpress"), verbs_(all_verbs()) {
    // The parser's own help needs no formatting: run() prints help_text.
    app_.set_help_flag("-h,--help", "print help");
    flags_.declare(app_);
    app_.allow_extras();
    app_.require_subcommand(0, 1);  // words behind the verb are its own: a pass may have a verb's name
    for (const auto& verb : verbs_) {
      CLI::App* sub = app_.add_subcommand(verb->name(), verb->summary());
      sub->set_help_flag("-h,--help", "print help")->group("");
      sub->fallthrough();
      sub->allow_extras();
      verb->declare(*sub);
    }
  }

  int run(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
      write_to(STDOUT_FILENO, help_text(app_, verbs_, chosen()));
      return status_done;
    } catch (const CLI::ArgumentMismatch& error) {
      reject_unknown();
      fail("{}{}", chosen() != nullptr ? chosen()->name() + ": " : "", mismatch(error.what()));
    } catch (const CLI::ParseError& error) {
      reject_unknown();
      fail("{}{}", chosen() != nullptr ? chosen()->name() + ": " : "", error.what());
    }
    reject_unknown();
    if (flags_.version) {
      write_to(STDOUT_FILENO, "onnxpress " + tool_version() + "\n");
      return status_done;
    }
    Verb* verb = chosen();
    require(verb != nullptr, "expected a verb: {} (--help tells more)",
            fmt::join(verb_names(), ", "));
    for (const std::string& plugin : flags_.plugins) load_plugin(plugin);
    verb->prepare(*app_.get_subcommand(verb->name()));
    Session session(flags_.settings());
    return verb->run(session);
  }

 private:
  Verb* chosen() const {
    for (const CLI::App* sub : app_.get_subcommands())
      for (const auto& verb : verbs_)
        if (verb->name() == sub->get_name()) return verb.get();
    return nullptr;
  }

  std::vector<std::string> verb_names() const {
    std::vector<std::string> names;
    for (const auto& verb : verbs_) names.push_back(verb->name());
    return names;
  }

  // Long options that may follow the chosen verb (or none).
  std::vector<std::string> option_names() const {
    std::vector<std::string> names;
    const auto add = [&](const CLI::App& app) {
      for (const CLI::Option* option : app.get_options())
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    };
    add(app_);
    for (const CLI::App* sub : app_.get_subcommands()) add(*sub);
    return names;
  }

  // An option with more values than it has, or with none; `text` is the parser's, which begins with its name.
  std::string mismatch(std::string_view text) const {
    for (const CLI::App* owner : {&app_, chosen() != nullptr ? app_.get_subcommand(chosen()->name()) : &app_})
      for (const CLI::Option* option : owner->get_options()) {
        const std::string name = option->get_name();
        const auto most = static_cast<std::size_t>(std::max(option->get_items_expected_max(), 1));
        if (option->count() > most)
          return fmt::format("{} is given {} times: expected one value, found {}", name, option->count(),
                             fmt::join(option->results(), ", "));
        if (option->count() == 0 && text.starts_with(name + ":"))
          return fmt::format("{}: expected {}, found nothing", name, option->get_type_name());
      }
    return std::string(text);
  }

  void reject_unknown() const {
    const std::vector<std::string> rest = app_.remaining(true);
    if (rest.empty()) return;
    const bool has_verb = chosen() != nullptr;
    for (const std::string& argument : rest) {
      const bool is_option = argument.size() > 1 && argument[0] == '-';
      if (!is_option && (has_verb || argument != rest.front())) continue;
      const std::string word = argument.substr(0, argument.find('='));
      const std::string nearest = nearest_name(word, is_option ? option_names() : verb_names());
      fail("unknown {} '{}'{}", is_option ? "option" : "verb", word,
           nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
    }
    fail("unexpected argument '{}'", rest.front());
  }

  CLI::App app_;
  GlobalFlags flags_;
  std::vector<std::unique_ptr<Verb>> verbs_;
};

}  // namespace

std::vector<std::unique_ptr<Verb>> all_verbs() {
  std::vector<std::unique_ptr<Verb>> verbs;
  verbs.push_back(compress_verb());
  verbs.push_back(inspect_verb());
  verbs.push_back(eval_verb());
  verbs.push_back(run_verb());
  verbs.push_back(compare_verb());
  verbs.push_back(analyze_verb());
  verbs.push_back(finetune_verb());
  verbs.push_back(distill_verb());
  verbs.push_back(passes_verb());
  return verbs;
}

int run_command(int argc, char** argv) {
  std::setlocale(LC_CTYPE, "");
  install_signal_handlers();
  try {
    return Command().run(argc, argv);
  } catch (const BrokenPipe&) {
  } catch (const std::bad_alloc&) {
    report_error("out of memory");
  } catch (const std::exception& error) {
    report_error(error.what());
  }
  return status_failed;
}

}  // namespace onnxpress
