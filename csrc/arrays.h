// Arguments from Python: NumPy arrays, checked, or addresses of memory that Python has checked already.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace jowa {

namespace py = pybind11;
using Shape = std::vector<py::ssize_t>;

std::string describe(const Shape& shape);

template <typename T>
constexpr const char* dtype_name();
template <>
constexpr const char* dtype_name<float>() { return "float32"; }
template <>
constexpr const char* dtype_name<bool>() { return "bool"; }
template <>
constexpr const char* dtype_name<std::int64_t>() { return "int64"; }

// Read-only numbers. Holds the array that they are in, or its copy in C order where it was strided.
template <typename T>
class Input {
 public:
  Input(const char* name, const py::object& object, const Shape& shape) {
    if (PyLong_Check(object.ptr())) {
      data_ = reinterpret_cast<const T*>(object.cast<std::uintptr_t>());
      return;
    }
    if (!py::isinstance<py::array_t<T>>(object)) {
      const std::string got = py::isinstance<py::array>(object)
                                  ? "dtype " + std::string(py::str(object.attr("dtype")))
                                  : std::string(py::str(py::type::handle_of(object).attr("__name__")));
      throw py::type_error(std::string(name) + " must be a NumPy array of " + dtype_name<T>() + ", got " + got);
    }
    array_ = py::array_t<T, py::array::c_style>::ensure(object);
    const Shape actual(array_.shape(), array_.shape() + array_.ndim());
    if (actual != shape)
      throw py::value_error(std::string(name) + " must have shape " + describe(shape) + ", got " + describe(actual));
    data_ = array_.data();
  }
  const T* data() const { return data_; }
  const std::uint8_t* bytes() const { return reinterpret_cast<const std::uint8_t*>(data_); }

 private:
  py::array_t<T, py::array::c_style> array_;
  const T* data_ = nullptr;
};

// As above, and nothing for None.
template <typename T>
const T* optional_input(const char* name, const py::object& object, const Shape& shape, std::vector<Input<T>>& held) {
  if (object.is_none()) return nullptr;
  held.emplace_back(name, object, shape);
  return held.back().data();
}

template <typename T>
T* at(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace jowa
