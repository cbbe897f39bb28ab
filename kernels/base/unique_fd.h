// Owns one file descriptor and closes it.
//
// Move-only: a copy would close the same number twice, and by then the number may
// belong to somebody else. Errors of close() are ignored: whoever needs the outcome of
// a write calls fdatasync() before.
//
// Thread safety: as an int's.

#ifndef KVTIER_KERNELS_BASE_UNIQUE_FD_H_
#define KVTIER_KERNELS_BASE_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace kvtier {

class UniqueFd {
 public:
  UniqueFd() = default;
  // Takes ownership; a negative number means none.
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

  // Gives ownership up.
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }

  void Reset(int fd = -1) {
    // Not repeated after EINTR: on Linux the descriptor is gone either way.
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace kvtier

#endif  // KVTIER_KERNELS_BASE_UNIQUE_FD_H_
