// Element types of keys and values as they are stored.

#ifndef KVTIER_KERNELS_BASE_DTYPE_H_
#define KVTIER_KERNELS_BASE_DTYPE_H_

#include <cstddef>
#include <cstdint>

namespace kvtier {

enum class DType : uint8_t { kF32 = 1, kF16 = 2, kBF16 = 3 };

constexpr size_t ElementBytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

constexpr const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
  }
  return "?";
}

}  // namespace kvtier

#endif  // KVTIER_KERNELS_BASE_DTYPE_H_
