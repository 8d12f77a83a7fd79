// Inputs and outputs of the model, and files and numbers as their bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace model {

enum class Type { kFloat32, kFloat16, kFloat64, kInt8, kUint8, kInt16, kInt32, kInt64, kBool };

// Real numbers are (stored - zero_point) * scale where the scale is not 0.
struct Tensor {
  const char* name;
  Type type;
  const std::int64_t* shape;
  std::size_t rank;
  float scale;
  int zero_point;
};

}  // namespace model

using Bytes = std::vector<std::uint8_t>;

inline std::size_t bytes_of(model::Type type) {
  switch (type) {
    case model::Type::kInt8:
    case model::Type::kUint8:
    case model::Type::kBool:
      return 1;
    case model::Type::kFloat16:
    case model::Type::kInt16:
      return 2;
    case model::Type::kFloat32:
    case model::Type::kInt32:
      return 4;
    default:
      return 8;
  }
}

inline std::size_t count_of(const model::Tensor& tensor) {
  std::size_t count = 1;
  for (std::size_t axis = 0; axis < tensor.rank; ++axis) count *= static_cast<std::size_t>(tensor.shape[axis]);
  return count;
}

inline bool takes_reals(const model::Tensor& tensor) {
  return tensor.type == model::Type::kFloat32 || tensor.scale != 0;
}

// The content of a file of exactly so many bytes.
inline Bytes read_file(const char* path, std::size_t size) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) throw std::runtime_error(std::string("cannot open ") + path);
  Bytes content(size + 1);
  const std::size_t count = std::fread(content.data(), 1, content.size(), file);
  std::fclose(file);
  if (count != size) throw std::runtime_error(std::string(path) + " has not the " + std::to_string(size) + " bytes");
  content.pop_back();
  return content;
}

template <typename Stored>
Bytes quantised(const std::vector<float>& values, const model::Tensor& tensor) {
  Bytes bytes(values.size() * sizeof(Stored));
  for (std::size_t place = 0; place < values.size(); ++place) {
    const float wanted = std::nearbyint(values[place] / tensor.scale) + static_cast<float>(tensor.zero_point);
    const float low = std::numeric_limits<Stored>::min(), high = std::numeric_limits<Stored>::max();
    const Stored stored = static_cast<Stored>(std::min(std::max(wanted, low), high));
    std::memcpy(bytes.data() + place * sizeof(Stored), &stored, sizeof(Stored));
  }
  return bytes;
}

// Real numbers as the bytes of a tensor that takes them.
inline Bytes encode(const std::vector<float>& values, const model::Tensor& tensor) {
  if (tensor.scale == 0) {
    Bytes bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  if (tensor.type == model::Type::kInt8) return quantised<std::int8_t>(values, tensor);
  if (tensor.type == model::Type::kUint8) return quantised<std::uint8_t>(values, tensor);
  return quantised<std::int16_t>(values, tensor);
}

template <typename Stored>
std::vector<double> stored(const Bytes& bytes) {
  std::vector<double> values(bytes.size() / sizeof(Stored));
  for (std::size_t place = 0; place < values.size(); ++place) {
    Stored value;
    std::memcpy(&value, bytes.data() + place * sizeof(Stored), sizeof(Stored));
    values[place] = static_cast<double>(value);
  }
  return values;
}

// The numbers of an output.
inline std::vector<double> decode(const Bytes& bytes, const model::Tensor& tensor) {
  std::vector<double> values;
  switch (tensor.type) {
    case model::Type::kFloat32: values = stored<float>(bytes); break;
    case model::Type::kFloat64: values = stored<double>(bytes); break;
    case model::Type::kInt8: values = stored<std::int8_t>(bytes); break;
    case model::Type::kInt16: values = stored<std::int16_t>(bytes); break;
    case model::Type::kInt32: values = stored<std::int32_t>(bytes); break;
    case model::Type::kInt64: values = stored<std::int64_t>(bytes); break;
    case model::Type::kFloat16: throw std::runtime_error("numbers of 16 bits are not decoded here");
    default: values = stored<std::uint8_t>(bytes);
  }
  if (tensor.scale != 0) {
    for (double& each : values) each = (each - tensor.zero_point) * static_cast<double>(tensor.scale);
  }
  return values;
}
