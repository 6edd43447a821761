#include "graph/base/hash.h"

#include <doctest/doctest.h>

#include <functional>
#include <set>
#include <vector>

using onnxpress::Hash128;
using onnxpress::Hasher;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

TEST_CASE("different sequences of adds hash differently") {
  const std::vector<std::function<void(Hasher&)>> sequences = {
      [](Hasher&) {},
      [](Hasher& hasher) { hasher.add(""); },
      [](Hasher& hasher) { hasher.add("").add(""); },
      [](Hasher& hasher) { hasher.add("ab"); },
      [](Hasher& hasher) { hasher.add("a").add("b"); },
      [](Hasher& hasher) { hasher.add("").add("ab"); },
      [](Hasher& hasher) { hasher.add_bytes(bytes_of("ab")); },
      [](Hasher& hasher) { hasher.add(1); },
      [](Hasher& hasher) { hasher.add(-1); },
      [](Hasher& hasher) { hasher.add(1).add(0); },
      [](Hasher& hasher) { hasher.add(0).add(1); },
      [](Hasher& hasher) {
        hasher.add(Hash128{0, 1});
      },
      [](Hasher& hasher) {
        hasher.add(Hash128{1, 0});
      },
  };
  std::set<Hash128> hashes;
  for (const auto& sequence : sequences) {
    Hasher hasher;
    sequence(hasher);
    hashes.insert(hasher.finish());
  }
  CHECK(hashes.size() == sequences.size());
}

TEST_CASE("a hash is the same every time, and finish does not end it") {
  Hasher hasher;
  hasher.add("conv").add(3);
  const Hash128 first = hasher.finish();
  CHECK(hasher.finish() == first);
  hasher.add(4);
  CHECK(hasher.finish() != first);
  Hasher again;
  again.add("conv").add(3);
  CHECK(again.finish() == first);
  // Kept in files (calibrations, golden reports): must not change between versions or machines.
  CHECK(first.hex() == "3d238695c52a611a5954fd21bdcc3563");
}

TEST_CASE("hex shows the high half first") {
  CHECK(Hash128{0x0123456789ABCDEF, 1}.hex() == "0123456789abcdef0000000000000001");
}

TEST_CASE("SHA-256 of the FIPS 180-4 examples, whole and in pieces") {
  CHECK(onnxpress::sha256({}) ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(onnxpress::sha256(bytes_of("abc")) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  onnxpress::Sha256 hash;
  hash.add(bytes_of("abcdbcdecdefdefgefghfghighij"));
  hash.add({});
  hash.add(bytes_of("hijkijkljklmklmnlmnomnopnopq"));
  CHECK(hash.finish() == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}
