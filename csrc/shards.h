// Rows of a sharded Zarr v3 array, decoded straight from the mapped shard files (docs/dataset.md has the layout).
//
// A shard file holds its inner chunks, then an index of (offset, size) pairs of little-endian uint64, one a chunk, then
// the index's crc32c. A chunk is compressed (or raw) bytes, then their crc32c. Nothing here throws while reading: what is
// wrong comes back as a Fault that says where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace jowa {

enum class Codec : std::int32_t {
  none,
  zstd,
  blosc_lz4,  // one LZ4 block in a container of Blosc 1
};

struct ShardLayout {
  std::string folder;  // of the array's shard files
  std::string suffix;  // what follows the shard's number in a file's path: "/0/0" for rows of two axes
  std::int64_t shard_rows;
  std::int64_t chunk_rows;  // divides shard_rows
  std::int64_t row_bytes;
  Codec codec;
  bool checksum;  // chunks end in their crc32c

  std::int64_t chunks() const { return shard_rows / chunk_rows; }
};

enum class Damage : std::int32_t {
  none,
  missing,         // no such file
  unreadable,      // the system refused: see `error`
  truncated,       // too short for an index
  index_checksum,
  chunk_absent,    // the index says that the chunk was never written
  chunk_bounds,    // the index points outside the file
  chunk_checksum,
  undecodable,     // the codec refused, or gave another size
};

struct Fault {
  Damage damage = Damage::none;
  std::int32_t error = 0;  // errno of `unreadable`
  std::int64_t shard = -1;
  std::int64_t chunk = -1;  // within the shard; -1 when the file as a whole is meant

  bool found() const { return damage != Damage::none; }
};

std::uint32_t crc32c(const std::uint8_t* data, std::size_t size);

// What a thread needs to decode: one at a time uses it.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // Decode the first `needed` bytes of the chunk of `size` bytes at `source`, which holds `whole`, to `target`, which
  // must have room for `needed`, with Zstandard for `whole`. Whether it could be decoded, to that size.
  bool decode(Codec codec, const std::uint8_t* source, std::size_t size, std::uint8_t* target, std::size_t needed,
              std::size_t whole);
  std::uint8_t* scratch(std::size_t size);

 private:
  void* context_;
  std::vector<std::uint8_t> scratch_;
};

std::unique_ptr<Workspace> borrow_workspace();
void return_workspace(std::unique_ptr<Workspace> workspace);

// A shard file in memory; unmapped with the last user.
struct Mapping {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;
  const std::uint8_t* index = nullptr;

  Mapping() = default;
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
};

// How many shard files this process keeps mapped at most, over all readers; returns what it was. The system bounds the
// mappings of a process (65,530 on Linux), and other libraries have some too.
std::size_t set_max_mapped(std::size_t count);

// One array. Any number of threads may read at once.
class RowReader {
 public:
  explicit RowReader(ShardLayout layout);
  ~RowReader();
  RowReader(const RowReader&) = delete;
  RowReader& operator=(const RowReader&) = delete;

  const ShardLayout& layout() const { return layout_; }

  // Rows [first, first + count) to `out`, count * row_bytes bytes.
  Fault read(std::int64_t first, std::int64_t count, std::uint8_t* out, Workspace& workspace);

  // Ask the system to bring the chunks of these rows into memory, without waiting for them.
  void prefetch(std::int64_t first, std::int64_t count);

  // Check the chunks of rows [first, first + count) of one shard: checksums, and that they decode.
  Fault check(std::int64_t shard, std::int64_t first_chunk, std::int64_t chunks, Workspace& workspace);

 private:
  Fault open(std::int64_t shard, std::shared_ptr<const Mapping>& mapping);
  Fault locate(const Mapping& mapping, std::int64_t shard, std::int64_t chunk, const std::uint8_t*& data,
               std::size_t& size) const;

  ShardLayout layout_;
  std::shared_mutex mutex_;
  std::unordered_map<std::int64_t, std::shared_ptr<const Mapping>> mapped_;

  friend class Mapped;
};

// Windows of rows of several arrays that share their row numbers (frames, actions, rewards): `out` holds one slot of
// `length` rows a window, zero behind the window's own rows.
struct Gather {
  std::vector<RowReader*> readers;  // one a game
  std::uint8_t* out;
};

struct GatherFault {
  Fault fault;
  std::int64_t window = -1;
  std::int64_t array = -1;
};

// The first fault in order of windows, if any; the others are read all the same.
GatherFault gather(const std::vector<Gather>& arrays, const std::int32_t* game, const std::int64_t* first,
                   const std::int64_t* count, std::int64_t windows, std::int64_t length, int threads, bool prefetch);

}  // namespace jowa
