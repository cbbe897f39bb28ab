// Sizes as people write them in the configuration: "4GiB", "512 MiB", "4096".
//
// Thread safety: pure functions.

#ifndef KVTIER_DAEMON_BYTE_SIZE_H_
#define KVTIER_DAEMON_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace kvtier::daemon {

// A whole number, then B, KiB, MiB, GiB, TiB or nothing (bytes); a blank between them
// is allowed. Decimal units are refused: "4GB" is too often meant as 4 GiB.
// InvalidArgument: anything else, or more than 2^63 - 1 bytes.
absl::StatusOr<uint64_t> ParseByteSize(const std::string& text);

// The largest unit that divides it: 4294967296 is "4GiB", 1000 is "1000B".
std::string FormatByteSize(uint64_t bytes);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_BYTE_SIZE_H_
