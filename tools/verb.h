// One subcommand. Each lives in a file of its own and is listed in all_verbs().
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "tools/session.h"

namespace onnxpress {

class Verb {
 public:
  virtual ~Verb() = default;
  virtual std::string name() const = 0;
  virtual std::string summary() const = 0;
  virtual std::string usage() const = 0;  // "MODEL --data DATA"
  virtual void declare(CLI::App& app) = 0;
  // Called before run(), with the options given on the command line: may add defaults (recipes).
  virtual void prepare(CLI::App&) {}
  // Returns an exit status; throws Error for status 2.
  virtual int run(Session& session) = 0;
};

std::unique_ptr<Verb> compress_verb();
std::unique_ptr<Verb> inspect_verb();
std::unique_ptr<Verb> eval_verb();
std::unique_ptr<Verb> run_verb();
std::unique_ptr<Verb> compare_verb();
std::unique_ptr<Verb> analyze_verb();
std::unique_ptr<Verb> finetune_verb();
std::unique_ptr<Verb> distill_verb();
std::unique_ptr<Verb> passes_verb();

// In the order of the help.
std::vector<std::unique_ptr<Verb>> all_verbs();

// The help of the command (`verb` null) or of one verb.
std::string help_text(const CLI::App& app, const std::vector<std::unique_ptr<Verb>>& verbs,
                      const Verb* verb);

}  // namespace onnxpress
