#include "shards.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

// The few functions of Zstandard and LZ4 that are used (third_party), as their headers declare them.
extern "C" {
int LZ4_decompress_safe_partial(const char* source, char* target, int size, int needed, int capacity);
typedef struct ZSTD_DCtx_s ZSTD_DCtx;
ZSTD_DCtx* ZSTD_createDCtx(void);
std::size_t ZSTD_freeDCtx(ZSTD_DCtx* context);
std::size_t ZSTD_decompressDCtx(ZSTD_DCtx* context, void* target, std::size_t capacity, const void* source,
                                std::size_t size);
unsigned ZSTD_isError(std::size_t code);
}

static_assert(std::endian::native == std::endian::little, "shards are little-endian, and so is what reads them");

namespace jowa {
namespace {

constexpr std::size_t kChecksum = 4;
constexpr std::size_t kEntry = 16;
constexpr std::uint64_t kAbsent = ~std::uint64_t{0};

template <typename T>
T load(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

bool checksum_holds(const std::uint8_t* data, std::size_t size) {
  return size >= kChecksum && crc32c(data, size - kChecksum) == load<std::uint32_t>(data + size - kChecksum);
}

}  // namespace

Workspace::Workspace() : context_(ZSTD_createDCtx()) {
  if (context_ == nullptr) throw std::bad_alloc();
}

Workspace::~Workspace() { ZSTD_freeDCtx(static_cast<ZSTD_DCtx*>(context_)); }

namespace {

// The one block of a Blosc 1 container: header of 16 bytes (version, version of the codec, flags, size of a type; then
// decoded, block and whole size), where the block starts, its size. Blocks that did not shrink are stored as they are.
bool decode_blosc_lz4(const std::uint8_t* source, std::size_t size, std::uint8_t* target, std::size_t needed,
                      std::size_t whole) {
  constexpr std::size_t header = 16;
  constexpr unsigned shuffled = 0x01 | 0x04, stored = 0x02, lz4 = 1;
  if (size < header || load<std::uint32_t>(source + 4) != whole || load<std::uint32_t>(source + 12) != size)
    return false;
  const unsigned flags = source[2];
  if (flags & shuffled) return false;
  if (flags & stored) {
    if (size != header + whole) return false;
    std::memcpy(target, source + header, needed);
    return true;
  }
  const std::size_t begins = header + 4 + 4;
  if (flags >> 5 != lz4 || source[3] != 1 || load<std::uint32_t>(source + 8) != whole || size < begins ||
      load<std::uint32_t>(source + header) != header + 4 || load<std::uint32_t>(source + header + 4) != size - begins)
    return false;
  if (size - begins == whole) {
    std::memcpy(target, source + begins, needed);
    return true;
  }
  const int got = LZ4_decompress_safe_partial(reinterpret_cast<const char*>(source + begins),
                                              reinterpret_cast<char*>(target), static_cast<int>(size - begins),
                                              static_cast<int>(needed), static_cast<int>(needed));
  return got >= 0 && static_cast<std::size_t>(got) >= needed;
}

}  // namespace

bool Workspace::decode(Codec codec, const std::uint8_t* source, std::size_t size, std::uint8_t* target,
                       std::size_t needed, std::size_t whole) {
  switch (codec) {
    case Codec::none:
      if (size != whole) return false;
      std::memcpy(target, source, needed);
      return true;
    case Codec::zstd: {
      const std::size_t got = ZSTD_decompressDCtx(static_cast<ZSTD_DCtx*>(context_), target, whole, source, size);
      return !ZSTD_isError(got) && got == whole;
    }
    case Codec::blosc_lz4: return decode_blosc_lz4(source, size, target, needed, whole);
  }
  return false;
}

std::uint8_t* Workspace::scratch(std::size_t size) {
  if (scratch_.size() < size) scratch_.resize(size);
  return scratch_.data();
}

namespace {

// Idle workspaces: a decoder's tables take longer to set up than a small batch takes to read.
std::mutex idle_mutex;
std::vector<std::unique_ptr<Workspace>> idle;

}  // namespace

std::unique_ptr<Workspace> borrow_workspace() {
  const std::lock_guard lock(idle_mutex);
  if (idle.empty()) return std::make_unique<Workspace>();
  auto workspace = std::move(idle.back());
  idle.pop_back();
  return workspace;
}

void return_workspace(std::unique_ptr<Workspace> workspace) {
  const std::lock_guard lock(idle_mutex);
  idle.push_back(std::move(workspace));
}

Mapping::~Mapping() {
  if (data != nullptr) munmap(const_cast<std::uint8_t*>(data), size);
}

// The mappings of all readers in the order in which they were made, so that the oldest can make room.
// Lock order: this one's mutex, then a reader's.
class Mapped {
 public:
  void add(RowReader* reader, std::int64_t shard, std::shared_ptr<const Mapping> mapping) {
    const std::lock_guard lock(mutex_);
    {
      const std::unique_lock reader_lock(reader->mutex_);
      if (!reader->mapped_.emplace(shard, std::move(mapping)).second) return;  // another thread was faster
    }
    order_.push_back({reader, shard});
    shrink();
  }

  void forget(RowReader* reader) {
    const std::lock_guard lock(mutex_);
    std::erase_if(order_, [reader](const auto& entry) { return entry.first == reader; });
  }

  std::size_t limit(std::size_t most) {
    const std::lock_guard lock(mutex_);
    std::swap(most, most_);
    shrink();
    return most;
  }

 private:
  void shrink() {
    while (order_.size() > most_) {  // who still reads from a mapping keeps it
      const auto [oldest, shard] = order_.front();
      order_.pop_front();
      const std::unique_lock reader_lock(oldest->mutex_);
      oldest->mapped_.erase(shard);
    }
  }

  std::mutex mutex_;
  std::deque<std::pair<RowReader*, std::int64_t>> order_;
  std::size_t most_ = 32768;
};

namespace {

Mapped& mapped() {
  static auto* const all = new Mapped;  // never destroyed: readers may outlive the program's other statics
  return *all;
}

}  // namespace

std::size_t set_max_mapped(std::size_t count) { return mapped().limit(count); }

RowReader::RowReader(ShardLayout layout) : layout_(std::move(layout)) {}

RowReader::~RowReader() { mapped().forget(this); }

Fault RowReader::open(std::int64_t shard, std::shared_ptr<const Mapping>& mapping) {
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = mapped_.find(shard); found != mapped_.end()) {
      mapping = found->second;
      return {};
    }
  }
  const std::string path = layout_.folder + "/" + std::to_string(shard) + layout_.suffix;
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {errno == ENOENT ? Damage::missing : Damage::unreadable, errno, shard, -1};
  const auto made = std::make_shared<Mapping>();
  const std::size_t index_bytes = static_cast<std::size_t>(layout_.chunks()) * kEntry;
  struct stat status;
  Fault fault{Damage::none, 0, shard, -1};
  if (fstat(file, &status) != 0) {
    fault = {Damage::unreadable, errno, shard, -1};
  } else if (static_cast<std::size_t>(status.st_size) < index_bytes + kChecksum) {
    fault.damage = Damage::truncated;
  } else {
    void* data = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) {
      fault = {Damage::unreadable, errno, shard, -1};
    } else {
      made->data = static_cast<const std::uint8_t*>(data);
      made->size = static_cast<std::size_t>(status.st_size);
      made->index = made->data + made->size - index_bytes - kChecksum;
      if (!checksum_holds(made->index, index_bytes + kChecksum)) fault.damage = Damage::index_checksum;
    }
  }
  ::close(file);
  if (fault.found()) return fault;
  mapping = made;
  mapped().add(this, shard, made);
  return {};
}

Fault RowReader::locate(const Mapping& mapping, std::int64_t shard, std::int64_t chunk, const std::uint8_t*& data,
                        std::size_t& size) const {
  const std::uint8_t* entry = mapping.index + static_cast<std::size_t>(chunk) * kEntry;
  const auto offset = load<std::uint64_t>(entry), bytes = load<std::uint64_t>(entry + 8);
  if (offset == kAbsent && bytes == kAbsent) return {Damage::chunk_absent, 0, shard, chunk};
  const auto end = static_cast<std::uint64_t>(mapping.index - mapping.data);
  if (offset > end || bytes > end - offset || (layout_.checksum && bytes < kChecksum))
    return {Damage::chunk_bounds, 0, shard, chunk};
  data = mapping.data + offset;
  size = static_cast<std::size_t>(bytes);
  return {};
}

Fault RowReader::read(std::int64_t first, std::int64_t count, std::uint8_t* out, Workspace& workspace) {
  const auto row = static_cast<std::size_t>(layout_.row_bytes);
  const std::size_t chunk_bytes = static_cast<std::size_t>(layout_.chunk_rows) * row;
  while (count > 0) {
    const std::int64_t shard = first / layout_.shard_rows, chunk = first % layout_.shard_rows / layout_.chunk_rows;
    const std::int64_t skip = first % layout_.chunk_rows, taken = std::min(layout_.chunk_rows - skip, count);
    std::shared_ptr<const Mapping> mapping;
    if (const Fault fault = open(shard, mapping); fault.found()) return fault;
    const std::uint8_t* data;
    std::size_t size;
    if (const Fault fault = locate(*mapping, shard, chunk, data, size); fault.found()) return fault;
    if (layout_.checksum) {
      if (!checksum_holds(data, size)) return {Damage::chunk_checksum, 0, shard, chunk};
      size -= kChecksum;
    }
    const std::size_t wanted = static_cast<std::size_t>(taken) * row;
    const std::size_t before = static_cast<std::size_t>(skip) * row;
    // LZ4 stops where it is told to; Zstandard needs room for all of the chunk.
    const bool direct = before == 0 && (wanted == chunk_bytes || layout_.codec != Codec::zstd);
    std::uint8_t* target = direct ? out : workspace.scratch(chunk_bytes);
    if (!workspace.decode(layout_.codec, data, size, target, before + wanted, chunk_bytes))
      return {Damage::undecodable, 0, shard, chunk};
    if (!direct) std::memcpy(out, target + before, wanted);
    out += wanted;
    first += taken;
    count -= taken;
  }
  return {};
}

void RowReader::prefetch(std::int64_t first, std::int64_t count) {
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  for (std::int64_t at = first - first % layout_.chunk_rows; at < first + count; at += layout_.chunk_rows) {
    const std::int64_t shard = at / layout_.shard_rows;
    std::shared_ptr<const Mapping> mapping;
    const std::uint8_t* data;
    std::size_t size;
    if (open(shard, mapping).found()) return;  // read() will say what is wrong
    if (locate(*mapping, shard, at % layout_.shard_rows / layout_.chunk_rows, data, size).found()) return;
    const auto start = reinterpret_cast<std::uintptr_t>(data) / page * page;
    madvise(reinterpret_cast<void*>(start), reinterpret_cast<std::uintptr_t>(data) + size - start, MADV_WILLNEED);
  }
}

Fault RowReader::check(std::int64_t shard, std::int64_t first_chunk, std::int64_t chunks, Workspace& workspace) {
  const auto chunk_bytes = static_cast<std::size_t>(layout_.chunk_rows * layout_.row_bytes);
  const std::int64_t start = shard * layout_.shard_rows;
  for (std::int64_t chunk = first_chunk; chunk < first_chunk + chunks; ++chunk) {
    const std::int64_t first = start + chunk * layout_.chunk_rows;
    const Fault fault = read(first, layout_.chunk_rows, workspace.scratch(chunk_bytes), workspace);
    if (fault.found()) return fault;
  }
  return {};
}

GatherFault gather(const std::vector<Gather>& arrays, const std::int32_t* game, const std::int64_t* first,
                   const std::int64_t* count, std::int64_t windows, std::int64_t length, int threads, bool prefetch) {
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  GatherFault worst;
  const auto work = [&](Workspace& workspace) {
    for (std::int64_t window; (window = next.fetch_add(1, std::memory_order_relaxed)) < windows;) {
      for (std::size_t array = 0; array < arrays.size(); ++array) {
        RowReader& reader = *arrays[array].readers[static_cast<std::size_t>(game[window])];
        const auto row = static_cast<std::size_t>(reader.layout().row_bytes);
        std::uint8_t* out = arrays[array].out + static_cast<std::size_t>(window * length) * row;
        const Fault fault = reader.read(first[window], count[window], out, workspace);
        std::memset(out + static_cast<std::size_t>(count[window]) * row, 0,
                    static_cast<std::size_t>(length - count[window]) * row);
        if (fault.found()) {
          const std::lock_guard lock(mutex);
          if (worst.window < 0 || window < worst.window)
            worst = {fault, window, static_cast<std::int64_t>(array)};
        }
      }
    }
  };
  if (prefetch)
    for (std::int64_t window = 0; window < windows; ++window)
      for (const Gather& array : arrays)
        array.readers[static_cast<std::size_t>(game[window])]->prefetch(first[window], count[window]);
  const auto helpers = static_cast<std::size_t>(
      std::max<std::int64_t>(0, std::min<std::int64_t>(threads, windows) - 1));
  std::vector<std::unique_ptr<Workspace>> workspaces;
  for (std::size_t i = 0; i <= helpers; ++i) workspaces.push_back(borrow_workspace());
  std::vector<std::thread> pool;
  pool.reserve(helpers);
  try {
    for (std::size_t i = 0; i < helpers; ++i) pool.emplace_back([&, i] { work(*workspaces[i]); });
  } catch (const std::system_error&) {  // no more threads to be had: those that there are do the work
  }
  work(*workspaces[helpers]);
  for (std::thread& helper : pool) helper.join();
  for (auto& workspace : workspaces) return_workspace(std::move(workspace));
  return worst;
}

}  // namespace jowa
