// CRC-32C (Castagnoli, RFC 3720), by the processor's own instruction where it has one.
#include <array>
#include <cstring>

#include "shards.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace jowa {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78;  // reflected

constexpr std::array<std::array<std::uint32_t, 256>, 8> make_tables() {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? kPolynomial : 0);
    tables[0][byte] = value;
  }
  for (std::size_t table = 1; table < 8; ++table)
    for (std::size_t byte = 0; byte < 256; ++byte)
      tables[table][byte] = (tables[table - 1][byte] >> 8) ^ tables[0][tables[table - 1][byte] & 0xFF];
  return tables;
}

constexpr auto kTables = make_tables();

// Eight bytes a round through as many tables.
std::uint32_t by_tables(std::uint32_t value, const std::uint8_t* data, std::size_t size) {
  for (; size >= 8; data += 8, size -= 8) {
    std::uint32_t next = 0;
    for (std::size_t i = 0; i < 8; ++i)
      next ^= kTables[7 - i][static_cast<std::uint8_t>(data[i] ^ (i < 4 ? value >> (8 * i) : 0))];
    value = next;
  }
  for (; size; ++data, --size) value = (value >> 8) ^ kTables[0][(value ^ *data) & 0xFF];
  return value;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t by_instruction(std::uint32_t value, const std::uint8_t* data,
                                                               std::size_t size) {
  std::uint64_t wide = value;
  for (; size >= 8; data += 8, size -= 8) {
    std::uint64_t word;
    std::memcpy(&word, data, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  value = static_cast<std::uint32_t>(wide);
  for (; size; ++data, --size) value = _mm_crc32_u8(value, *data);
  return value;
}
const bool kHasInstruction = __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
std::uint32_t by_instruction(std::uint32_t value, const std::uint8_t* data, std::size_t size) {
  for (; size >= 8; data += 8, size -= 8) {
    std::uint64_t word;
    std::memcpy(&word, data, 8);
    value = __crc32cd(value, word);
  }
  for (; size; ++data, --size) value = __crc32cb(value, *data);
  return value;
}
constexpr bool kHasInstruction = true;
#else
std::uint32_t by_instruction(std::uint32_t value, const std::uint8_t* data, std::size_t size) {
  return by_tables(value, data, size);
}
constexpr bool kHasInstruction = false;
#endif

}  // namespace

std::uint32_t crc32c(const std::uint8_t* data, std::size_t size) {
  return ~(kHasInstruction ? by_instruction(~0U, data, size) : by_tables(~0U, data, size));
}

}  // namespace jowa
