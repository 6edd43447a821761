#include <doctest/doctest.h>

#include "tools/document.h"
#include "tools/terminal.h"

namespace onnxpress {

namespace {

Document sample() {
  Document document;
  document.emplace_back(Heading{"Passes"});
  document.emplace_back(
      Table{{{"pass", false, true}, {"size", true}, {"note"}},
            {{"simplify", "273.1 KB", ""}, {Cell("fuse", Tone::bad), "9 B", "a|b"}}});
  document.emplace_back(Lines{{Cell("one line"), Cell("loud", Tone::strong)}});
  return document;
}

}  // namespace

TEST_CASE("a terminal table is aligned and has no spaces at line ends") {
  CHECK(render_terminal(sample(), {.width = 80}) ==
        "Passes\n"
        "pass          size  note\n"
        "------------------------\n"
        "simplify  273.1 KB\n"
        "fuse           9 B  a|b\n"
        "\n"
        "one line\n"
        "loud\n");
}

TEST_CASE("colour wraps text and leaves the alignment alone") {
  const std::string text = render_terminal(sample(), {.width = 80, .colour = true});
  CHECK(text.find("\033[1;31mfuse\033[0m           9 B  a|b\n") != std::string::npos);
  CHECK(text.find("\033[1mPasses\033[0m\n") == 0);
}

TEST_CASE("names shrink on a narrow terminal, numbers do not") {
  Document document;
  document.emplace_back(Table{{{"name", false, true}, {"bytes", true}},
                              {{"/encoder/layer.11/attention/output/dense/MatMul", "1.24 MB"}}});
  const std::string text = render_terminal(document, {.width = 40});
  CHECK(text ==
        "name                               bytes\n"
        "----------------------------------------\n"
        "/encoder/layer...t/dense/MatMul  1.24 MB\n");
}

TEST_CASE("sentences go on below where it is narrow") {
  Document document;
  document.emplace_back(Table{{{"pass"}, {"does", false, false, true}},
                              {{"fuse", "merges operators that one operator can do as well"},
                               {"prune", "zeroes weights"}}});
  CHECK(render_terminal(document, {.width = 40}) ==
        "pass   does\n"
        "----------------------------------------\n"
        "fuse   merges operators that one\n"
        "       operator can do as well\n"
        "prune  zeroes weights\n");
}

TEST_CASE("long words of sentences are broken behind a comma or brace, else anywhere") {
  Document document;
  document.emplace_back(Table{
      {{"pass", false, false, true}, {"n", true}},
      {{"prune_magnitude{sparsity=0.5,scope=layer}", "1"}, {"abcdefghijklmnopqrstuvwxyz", "2"}}});
  CHECK(render_terminal(document, {.width = 22}) ==
        "pass                 n\n"
        "----------------------\n"
        "prune_magnitude{     1\n"
        "sparsity=0.5,\n"
        "scope=layer}\n"
        "abcdefghijklmnopqrs  2\n"
        "tuvwxyz\n");
}

TEST_CASE("a progress bar") {
  CHECK(progress_bar(0, 10, 4) == "[....]   0 %");
  CHECK(progress_bar(5, 10, 4) == "[##..]  50 %");
  CHECK(progress_bar(10, 10, 4) == "[####] 100 %");
  CHECK(progress_bar(11, 10, 4) == "[####] 100 %");
  CHECK(progress_bar(1, 0, 4) == "[....]   0 %");
}

TEST_CASE("control characters of names do not reach the terminal") {
  Document document;
  document.emplace_back(Lines{{Cell("a\033[2Jb\n")}});
  CHECK(render_terminal(document, {}) == "a?[2Jb?\n");
  CHECK(message_line("error: a\033[2Jb\nc") == "onnxpress: error: a?[2Jb c\n");
}

TEST_CASE("Markdown tables escape what would be markup") {
  CHECK(render_markdown(sample()) ==
        "### Passes\n"
        "\n"
        "| pass | size | note |\n"
        "|---|---:|---|\n"
        "| simplify | 273.1 KB |  |\n"
        "| **fuse** | 9 B | a\\|b |\n"
        "\n"
        "- one line\n"
        "- **loud**\n");
}

}  // namespace onnxpress
