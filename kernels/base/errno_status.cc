#include "kernels/base/errno_status.h"

#include <cerrno>
#include <string>
#include <system_error>

namespace kvtier {
namespace {

absl::StatusCode CodeFor(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      return absl::StatusCode::kNotFound;
    case EEXIST:
    case EADDRINUSE:
      return absl::StatusCode::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case EFBIG:
    case EAGAIN:
    case EBUSY:
      return absl::StatusCode::kResourceExhausted;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case ENOTCONN:
    case ETIMEDOUT:
      return absl::StatusCode::kUnavailable;
    case EINTR:
    case ECANCELED:
      return absl::StatusCode::kCancelled;
    case EIO:
      return absl::StatusCode::kDataLoss;
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
      return absl::StatusCode::kInvalidArgument;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status ErrnoToStatus(int error_number, std::string_view operation,
                           std::string_view path) {
  std::string message(operation);
  if (!path.empty()) {
    message += ' ';
    message += path;
  }
  message += ": ";
  message += error_number == 0 ? "failed without an error number"
                               : std::generic_category().message(error_number);
  return absl::Status(CodeFor(error_number), message);
}

}  // namespace kvtier
