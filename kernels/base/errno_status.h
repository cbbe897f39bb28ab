// Turns errno into a Status: the one place where the codes are chosen.
//
// Thread safety: a pure function.

#ifndef KVTIER_KERNELS_BASE_ERRNO_STATUS_H_
#define KVTIER_KERNELS_BASE_ERRNO_STATUS_H_

#include <string_view>

#include "absl/status/status.h"

namespace kvtier {

// "operation path: reason", path left out where there is none. An error number of 0 is
// our bug and gives Internal.
//   NotFound, AlreadyExists, PermissionDenied: as the names say (a read-only file
//     system too is PermissionDenied)
//   ResourceExhausted: no memory, disk, quota or descriptors; or it would block
//   Unavailable: nobody is at the other end; Cancelled: interrupted
//   DataLoss: input/output error; InvalidArgument: the kernel refused an argument
//   Internal: anything else
absl::Status ErrnoToStatus(int error_number, std::string_view operation,
                           std::string_view path = {});

}  // namespace kvtier

#endif  // KVTIER_KERNELS_BASE_ERRNO_STATUS_H_
