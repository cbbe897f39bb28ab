// CRC32C (Castagnoli), as in iSCSI and RocksDB.
//
// Thread safety: a pure function.

#ifndef KVTIER_KERNELS_HOST_CHECKSUM_H_
#define KVTIER_KERNELS_HOST_CHECKSUM_H_

#include <cstddef>
#include <cstdint>

namespace kvtier::kernels {

// Crc32c(0, data) is the usual CRC32C. Chains: the CRC of a and b in sequence is
// Crc32c(Crc32c(seed, a), b).
uint32_t Crc32c(uint32_t seed, const std::byte* data, size_t bytes);

}  // namespace kvtier::kernels

#endif  // KVTIER_KERNELS_HOST_CHECKSUM_H_
