// TfIdfVectorizer.
#include <algorithm>
#include <map>
#include <memory>
#include <string>

#include "graph/ops/attributes.h"
#include "graph/ops/registry.h"

namespace onnxpress {
namespace {

// The n-grams to count, of integers, or of strings by their number in `words`.
struct Vocabulary {
  enum class Mode { tf, idf, tfidf } mode = Mode::tf;
  std::int64_t shortest = 1, longest = 1, skips = 0;
  std::vector<std::int64_t> columns;  // output index of every n-gram of the pool
  std::vector<float> weights;         // of every n-gram; empty: 1
  bool of_strings = false;
  std::map<std::string, std::int64_t, std::less<>> words;
  std::map<std::vector<std::int64_t>, std::size_t> grams;  // position in the pool

  static Vocabulary from(const Node& node);
  std::int64_t width() const { return columns.empty() ? 0 : std::ranges::max(columns) + 1; }
};

Vocabulary Vocabulary::from(const Node& node) {
  Vocabulary result;
  const std::string mode = get_string(node, "mode", "");
  require(mode == "TF" || mode == "IDF" || mode == "TFIDF",
          "attribute 'mode': expected TF, IDF or TFIDF, found '{}'", mode);
  if (mode != "TF") result.mode = mode == "IDF" ? Mode::idf : Mode::tfidf;
  result.shortest = require_int(node, "min_gram_length");
  result.longest = require_int(node, "max_gram_length");
  result.skips = require_int(node, "max_skip_count");
  require(1 <= result.shortest && result.shortest <= result.longest && result.skips >= 0,
          "expected 1 <= min_gram_length <= max_gram_length and max_skip_count >= 0, found {}, {} "
          "and {}",
          result.shortest, result.longest, result.skips);
  result.columns = require_ints(node, "ngram_indexes");
  for (const std::int64_t column : result.columns)
    require(0 <= column && column < std::int64_t{1} << 31,
            "attribute 'ngram_indexes': expected indices from 0 to 2^31 - 1, found {}", column);
  result.weights = get_floats(node, "weights");
  require(result.weights.empty() || result.weights.size() == result.columns.size(),
          "attribute 'weights': expected {} values, found {}", result.columns.size(),
          result.weights.size());

  std::vector<std::int64_t> pool = get_ints(node, "pool_int64s");
  const std::vector<std::string> strings = get_strings(node, "pool_strings");
  require(pool.empty() != strings.empty(),
          "expected one of the attributes 'pool_int64s' and 'pool_strings', found {}",
          pool.empty() ? "none" : "both");
  result.of_strings = !strings.empty();
  for (const std::string& text : strings)
    pool.push_back(result.words.try_emplace(text, static_cast<std::int64_t>(result.words.size()))
                       .first->second);

  // Where the 1-grams, 2-grams, ... begin in the pool.
  std::vector<std::int64_t> starts = require_ints(node, "ngram_counts");
  const auto size = static_cast<std::int64_t>(pool.size());
  starts.push_back(size);
  std::size_t index = 0;
  for (std::size_t n = 1; n < starts.size(); ++n) {
    const std::int64_t begin = starts[n - 1], end = starts[n],
                       length = static_cast<std::int64_t>(n);
    require(0 <= begin && begin <= end && end <= size && (end - begin) % length == 0,
            "attribute 'ngram_counts': elements {} to {} of a pool of {} are no {}-grams", begin,
            end, size, n);
    for (std::int64_t at = begin; at < end; at += length, ++index)
      result.grams[{pool.begin() + at, pool.begin() + at + length}] = index;
  }
  require(index == result.columns.size(),
          "attribute 'ngram_indexes': expected one of {} n-grams each, found {}", index,
          result.columns.size());
  return result;
}

// Elements as the pool has them; what it has not is -1 of strings, which are numbered from 0.
std::vector<std::int64_t> tokens(const Vocabulary& vocabulary, const Tensor& x) {
  const bool strings = x.dtype() == DType::string;
  require(strings == vocabulary.of_strings, "expected {}, found {}",
          vocabulary.of_strings ? "strings" : "integers", name(x.dtype()));
  if (!strings) return x.to_ints();
  std::vector<std::int64_t> result;
  for (const std::string& text : x.strings()) {
    const auto found = vocabulary.words.find(text);
    result.push_back(found != vocabulary.words.end() ? found->second : -1);
  }
  return result;
}

// Adds the n-grams of one row to `y`. 1-grams count once, whatever the distance of elements.
void count_grams(const Vocabulary& vocabulary, std::span<const std::int64_t> row, float* y) {
  const auto size = static_cast<std::int64_t>(row.size());
  std::vector<std::int64_t> gram;
  const std::int64_t furthest = std::min(vocabulary.skips, size);
  for (std::int64_t distance = 1; distance <= furthest + 1; ++distance)
    for (std::int64_t begin = 0; begin < size; ++begin) {
      gram.clear();
      for (std::int64_t at = begin; at < size; at += distance) {
        gram.push_back(row[static_cast<std::size_t>(at)]);
        const auto length = static_cast<std::int64_t>(gram.size());
        if (length > vocabulary.longest) break;
        if (length < vocabulary.shortest || (length == 1 && distance > 1)) continue;
        const auto found = vocabulary.grams.find(gram);
        if (found == vocabulary.grams.end()) continue;
        const float weight = vocabulary.mode == Vocabulary::Mode::tf || vocabulary.weights.empty()
                                 ? 1.0f
                                 : vocabulary.weights[found->second];
        float& count = y[vocabulary.columns[found->second]];
        count = vocabulary.mode == Vocabulary::Mode::idf ? weight : count + weight;
      }
    }
}

Kernel prepare_tfidf(const PrepareContext& prepare) {
  return [vocabulary = std::make_shared<const Vocabulary>(Vocabulary::from(prepare.node()))](
             KernelContext& context) {
    const Tensor& x = context.required_input(0);
    require(x.rank() <= 2, "expected one row or a matrix of rows, found {}", to_string(x.dims()));
    const std::int64_t rows = x.rank() == 2 ? x.dim(0) : 1;
    const std::int64_t width = vocabulary->width();
    const std::int64_t length = x.rank() == 0 ? 1 : x.dims().back();
    Tensor& out =
        context.output(0, DType::float32, x.rank() == 2 ? Dims{rows, width} : Dims{width});
    float* y = out.mutable_data<float>().data();
    std::fill_n(y, out.size(), 0.0f);
    const std::vector<std::int64_t> all = tokens(*vocabulary, x);
    context.pool().parallel_for(rows, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r)
        count_grams(*vocabulary,
                    std::span(all).subspan(static_cast<std::size_t>(r * length),
                                           static_cast<std::size_t>(length)),
                    y + r * width);
    });
  };
}

void infer_tfidf(InferContext& context) {
  const Dim width = Vocabulary::from(context.node()).width();
  const Shape* x = context.input_shape(0);
  std::optional<Shape> shape;
  if (x != nullptr) {
    require(x->size() <= 2, "expected one row or a matrix of rows, found {}", to_string(*x));
    shape = x->size() == 2 ? Shape{(*x)[0], width} : Shape{width};
  }
  context.set_output(0, DType::float32, std::move(shape));
}

}  // namespace

OPERATORS(tfidf) {
  registry.add(
      OpDef{.name = "TfIdfVectorizer", .since = 9, .infer = infer_tfidf, .prepare = prepare_tfidf});
}

}  // namespace onnxpress
