#include "graph/base/hash.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <cstring>
#include <new>

#include "graph/base/error.h"

namespace onnxpress {

namespace {

// One byte that says what follows, then a little-endian integer: the same stream on every machine.
using Frame = std::array<unsigned char, 9>;

Frame frame(char tag, std::uint64_t value) {
  Frame result;
  result[0] = static_cast<unsigned char>(tag);
  for (std::size_t i = 0; i < 8; ++i) result[i + 1] = static_cast<unsigned char>(value >> (8 * i));
  return result;
}

}  // namespace

std::string Hash128::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

struct Hasher::State {
  State() : xxh(XXH3_createState()) {
    if (xxh == nullptr) throw std::bad_alloc();
    XXH3_128bits_reset(xxh);
  }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void update(const void* data, std::size_t size) { XXH3_128bits_update(xxh, data, size); }

  XXH3_state_t* xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;

Hasher& Hasher::add(std::int64_t value) {
  const Frame bytes = frame('i', static_cast<std::uint64_t>(value));
  state_->update(bytes.data(), bytes.size());
  return *this;
}

Hasher& Hasher::add(std::string_view text) {
  const Frame length = frame('s', text.size());
  state_->update(length.data(), length.size());
  state_->update(text.data(), text.size());
  return *this;
}

Hasher& Hasher::add(const Hash128& hash) {
  const Frame high = frame('h', hash.high);
  const Frame low = frame('l', hash.low);
  state_->update(high.data(), high.size());
  state_->update(low.data(), low.size());
  return *this;
}

Hasher& Hasher::add_bytes(std::span<const std::byte> bytes) {
  const Frame length = frame('b', bytes.size());
  state_->update(length.data(), length.size());
  state_->update(bytes.data(), bytes.size());
  return *this;
}

Hash128 Hasher::finish() const {
  const XXH128_hash_t digest = XXH3_128bits_digest(state_->xxh);
  return {digest.high64, digest.low64};
}

struct Sha256::State {
  State() : context(EVP_MD_CTX_new()) {
    if (context == nullptr) throw std::bad_alloc();
    if (EVP_DigestInit_ex(context, EVP_sha256(), nullptr) != 1) {
      EVP_MD_CTX_free(context);
      fail("SHA-256 is not available in this OpenSSL");
    }
  }
  ~State() { EVP_MD_CTX_free(context); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  EVP_MD_CTX* context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::~Sha256() = default;

Sha256& Sha256::add(std::span<const std::byte> bytes) {
  require(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1,
          "SHA-256 failed on {} bytes", bytes.size());
  return *this;
}

std::string Sha256::finish() {
  std::array<unsigned char, 32> digest;
  require(EVP_DigestFinal_ex(state_->context, digest.data(), nullptr) == 1,
          "SHA-256 failed to finish");
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

std::string sha256(std::span<const std::byte> bytes) { return Sha256().add(bytes).finish(); }

}  // namespace onnxpress
