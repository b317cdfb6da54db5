// jowa._native, reading of shards: argument checks and nothing else. Python's side is jowa/data/rows.py.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "shards.h"

namespace py = pybind11;

namespace {

using jowa::Damage;
using jowa::Fault;
using jowa::RowReader;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

const char* reason(Damage damage) {
  switch (damage) {
    case Damage::none: break;
    case Damage::missing: return "the file is missing";
    case Damage::unreadable: return "the file cannot be read";
    case Damage::truncated: return "the file is truncated";
    case Damage::index_checksum: return "the checksum of its index is wrong";
    case Damage::chunk_absent: return "a chunk was never written";
    case Damage::chunk_bounds: return "its index points outside the file";
    case Damage::chunk_checksum: return "the checksum of a chunk is wrong";
    case Damage::undecodable: return "a chunk cannot be decoded";
  }
  return "";
}

// None, or (shard, chunk or -1, what is wrong).
py::object describe(const Fault& fault) {
  if (!fault.found()) return py::none();
  std::string text = reason(fault.damage);
  if (fault.damage == Damage::unreadable) text += std::string(" (") + std::strerror(fault.error) + ")";
  return py::make_tuple(fault.shard, fault.chunk, text);
}

RowReader* make(const std::string& folder, const std::string& suffix, std::int64_t shard_rows, std::int64_t chunk_rows,
                std::int64_t row_bytes, const std::string& codec, bool checksum) {
  if (chunk_rows < 1 || row_bytes < 1 || shard_rows < 1 || shard_rows % chunk_rows)
    throw py::value_error("shard_rows must be a positive multiple of chunk_rows, and row_bytes positive");
  const auto known = codec == "zstd"    ? jowa::Codec::zstd
                     : codec == "blosc" ? jowa::Codec::blosc_lz4
                     : codec == "none"  ? jowa::Codec::none
                                        : throw py::value_error("codec must be zstd, blosc or none, got " + codec);
  if (chunk_rows * row_bytes > 0x7E000000) throw py::value_error("a chunk must hold less than 2 GiB");
  return new RowReader({folder, suffix, shard_rows, chunk_rows, row_bytes, known, checksum});
}

// `out` is any C-contiguous array of `bytes` bytes.
std::uint8_t* buffer(const char* name, const py::array& out, std::int64_t bytes) {
  if (!out.writeable() || !(out.flags() & py::array::c_style))
    throw py::value_error(std::string(name) + " must be a writeable, C-contiguous array");
  if (out.nbytes() != bytes)
    throw py::value_error(std::string(name) + " must hold " + std::to_string(bytes) + " bytes, got " +
                          std::to_string(out.nbytes()));
  return static_cast<std::uint8_t*>(const_cast<void*>(out.data()));
}

py::object read_rows(RowReader& reader, std::int64_t first, std::int64_t count, const py::array& out) {
  if (first < 0 || count < 0) throw py::value_error("first and count must not be negative");
  std::uint8_t* target = buffer("out", out, count * reader.layout().row_bytes);
  Fault fault;
  {
    const py::gil_scoped_release release;
    auto workspace = jowa::borrow_workspace();
    fault = reader.read(first, count, target, *workspace);
    jowa::return_workspace(std::move(workspace));
  }
  return describe(fault);
}

py::object check_chunks(RowReader& reader, std::int64_t shard, std::int64_t first_chunk, std::int64_t chunks) {
  if (shard < 0 || first_chunk < 0 || chunks < 0 || first_chunk + chunks > reader.layout().chunks())
    throw py::value_error("chunks must lie within a shard");
  Fault fault;
  {
    const py::gil_scoped_release release;
    auto workspace = jowa::borrow_workspace();
    fault = reader.check(shard, first_chunk, chunks, *workspace);
    jowa::return_workspace(std::move(workspace));
  }
  return describe(fault);
}

py::object gather_windows(const std::vector<std::vector<RowReader*>>& readers, const std::vector<py::array>& outs,
                  const Array<std::int32_t>& game, const Array<std::int64_t>& first, const Array<std::int64_t>& count,
                  std::int64_t length, int threads, bool prefetch) {
  const std::int64_t windows = game.size();
  if (readers.size() != outs.size() || first.size() != windows || count.size() != windows)
    throw py::value_error("readers and outs, and game, first and count, must be equally long");
  std::vector<jowa::Gather> arrays;
  for (std::size_t i = 0; i < readers.size(); ++i) {
    if (readers[i].empty() || readers[i].size() != readers[0].size())
      throw py::value_error("every array needs one reader for each game");
    const std::int64_t row = readers[i][0]->layout().row_bytes;
    for (const RowReader* reader : readers[i])
      if (reader->layout().row_bytes != row) throw py::value_error("rows of one array must be equally large");
    arrays.push_back({readers[i], buffer("out", outs[i], windows * length * row)});
  }
  const auto games = readers.empty() ? 0 : static_cast<std::int32_t>(readers[0].size());
  for (std::int64_t i = 0; i < windows; ++i)
    if (game.data()[i] < 0 || game.data()[i] >= games || first.data()[i] < 0 || count.data()[i] < 0 ||
        count.data()[i] > length)
      throw py::value_error("window " + std::to_string(i) + " is outside the arrays or longer than length");
  jowa::GatherFault found;
  {
    const py::gil_scoped_release release;
    found = jowa::gather(arrays, game.data(), first.data(), count.data(), windows, length, threads, prefetch);
  }
  if (!found.fault.found()) return py::none();
  return py::make_tuple(found.window, found.array, describe(found.fault));
}

}  // namespace

void bind_shards(py::module_& module) {
  py::class_<RowReader>(module, "RowReader", "Rows of one sharded array; jowa.data.rows says what it reads.")
      .def(py::init(&make), py::arg("folder"), py::arg("suffix"), py::arg("shard_rows"), py::arg("chunk_rows"),
           py::arg("row_bytes"), py::arg("codec"), py::arg("checksum"))
      .def("read", &read_rows, py::arg("first"), py::arg("count"), py::arg("out"))
      .def("check", &check_chunks, py::arg("shard"), py::arg("first_chunk"), py::arg("chunks"));
  module.def("gather", &gather_windows, py::arg("readers"), py::arg("outs"), py::arg("game"), py::arg("first"),
             py::arg("count"), py::arg("length"), py::arg("threads"), py::arg("prefetch"));
  module.def(
      "set_max_mapped",
      [](std::int64_t count) {
        if (count < 1) throw py::value_error("count must be at least 1, got " + std::to_string(count));
        return jowa::set_max_mapped(static_cast<std::size_t>(count));
      },
      py::arg("count"), "Bound the shard files that stay mapped, over all readers; returns the bound before.");
  module.def(
      "crc32c",
      [](const py::buffer& data) {
        const py::buffer_info info = data.request();
        if (!PyBuffer_IsContiguous(info.view(), 'C')) throw py::value_error("data must be contiguous");
        return jowa::crc32c(static_cast<const std::uint8_t*>(info.ptr),
                            static_cast<std::size_t>(info.size * info.itemsize));
      },
      py::arg("data"), "The CRC-32C of the bytes of a contiguous buffer.");
}
