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

// The few functions of Zstandard that are used (third_party/zstd), as its zstd.h declares them.
extern "C" {
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

bool Workspace::decode(const std::uint8_t* source, std::size_t size, std::uint8_t* target, std::size_t expected) {
  const std::size_t got = ZSTD_decompressDCtx(static_cast<ZSTD_DCtx*>(context_), target, expected, source, size);
  return !ZSTD_isError(got) && got == expected;
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

RowReader::RowReader(ShardLayout layout, std::size_t max_mapped)
    : layout_(std::move(layout)), max_mapped_(max_mapped) {}

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
  const std::unique_lock lock(mutex_);
  if (mapped_.emplace(shard, made).second) {
    order_.push_back(shard);
    if (order_.size() > max_mapped_) {  // who still reads from it keeps it mapped
      mapped_.erase(order_.front());
      order_.pop_front();
    }
  }
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
    if (!layout_.zstd) {
      if (size != chunk_bytes) return {Damage::undecodable, 0, shard, chunk};
      std::memcpy(out, data + static_cast<std::size_t>(skip) * row, wanted);
    } else if (wanted == chunk_bytes) {
      if (!workspace.decode(data, size, out, chunk_bytes)) return {Damage::undecodable, 0, shard, chunk};
    } else {
      std::uint8_t* scratch = workspace.scratch(chunk_bytes);
      if (!workspace.decode(data, size, scratch, chunk_bytes)) return {Damage::undecodable, 0, shard, chunk};
      std::memcpy(out, scratch + static_cast<std::size_t>(skip) * row, wanted);
    }
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
