#include "tests/bench/raw_disk.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/unique_fd.h"
#include "tests/bench/rounds.h"

namespace kvtier::bench {
namespace {

constexpr unsigned kDepthMax = 64;
constexpr size_t kBufferBytes = 1 << 20;

absl::Status Failed(const char* call, int error) {
  return absl::UnavailableError(
      absl::StrCat("raw disk: ", call, ": ", std::strerror(error)));
}

class RingDisk final : public RawDisk {
 public:
  RingDisk() = default;
  ~RingDisk() override {
    if (ring_made_) io_uring_queue_exit(&ring_);
    if (buffers_ != MAP_FAILED) munmap(buffers_, kDepthMax * kBufferBytes);
  }

  absl::Status Make(const std::string& directory, uint64_t bytes) {
    std::string path = absl::StrCat(directory, "/raw-XXXXXX");
    UniqueFd fd(mkostemp(path.data(), O_CLOEXEC | O_DIRECT));
    if (fd.get() < 0) return Failed("mkostemp with O_DIRECT", errno);
    unlink(path.c_str());
    if (const int error = posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes))) {
      return Failed("posix_fallocate", error);
    }
    files_.push_back(fd.get());
    owned_.push_back(std::move(fd));
    file_bytes_.push_back(bytes);
    return MakeRing();
  }

  absl::Status Open(const std::string& directory) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
      if (!absl::StartsWith(entry.path().filename().string(), "segment-")) continue;
      UniqueFd fd(open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
      if (fd.get() < 0) return Failed("open with O_DIRECT", errno);
      files_.push_back(fd.get());
      owned_.push_back(std::move(fd));
      file_bytes_.push_back(entry.file_size());
    }
    if (files_.empty())
      return absl::NotFoundError(absl::StrCat("no segments in ", directory));
    return MakeRing();
  }

  absl::Span<const uint64_t> file_bytes() const override { return file_bytes_; }

  absl::Status MakeRing() {
    buffers_ = mmap(nullptr, kDepthMax * kBufferBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffers_ == MAP_FAILED) return Failed("mmap", errno);
    std::memset(buffers_, 0x5A, kDepthMax * kBufferBytes);
    if (const int error = io_uring_queue_init(kDepthMax, &ring_, 0); error < 0) {
      return Failed("io_uring_queue_init", -error);
    }
    ring_made_ = true;
    const auto files = static_cast<unsigned>(files_.size());
    if (const int error = io_uring_register_files(&ring_, files_.data(), files);
        error < 0) {
      return Failed("io_uring_register_files", -error);
    }
    std::vector<iovec> buffers(kDepthMax);
    for (unsigned i = 0; i < kDepthMax; ++i) {
      buffers[i] = {.iov_base = Buffer(i), .iov_len = kBufferBytes};
    }
    if (const int error = io_uring_register_buffers(&ring_, buffers.data(), kDepthMax);
        error < 0) {
      return Failed("io_uring_register_buffers (memlock?)", -error);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<double> Run(Kind kind, const std::vector<Request>& requests,
                             unsigned depth, std::vector<double>* latencies) override {
    depth = std::min(depth, kDepthMax);
    if (latencies != nullptr) latencies->assign(requests.size(), 0.0);
    std::vector<unsigned> free;
    for (unsigned i = 0; i < depth; ++i) free.push_back(i);
    std::vector<size_t> request_of(depth);
    std::vector<double> started(depth);
    const Stopwatch stopwatch;
    size_t next = 0;
    for (size_t done = 0; done < requests.size();) {
      while (next < requests.size() && !free.empty()) {
        const unsigned slot = free.back();
        free.pop_back();
        request_of[slot] = next;
        started[slot] = stopwatch.Seconds();
        Prepare(kind, requests[next++], slot);
      }
      io_uring_submit_and_wait(&ring_, 1);
      io_uring_cqe* cqe = nullptr;
      while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
        const auto slot = static_cast<unsigned>(io_uring_cqe_get_data64(cqe));
        const int result = cqe->res;
        io_uring_cqe_seen(&ring_, cqe);
        if (result < 0) return Failed("a request", -result);
        if (static_cast<size_t>(result) != requests[request_of[slot]].bytes) {
          return absl::UnavailableError("raw disk: a short transfer");
        }
        if (latencies != nullptr) {
          (*latencies)[request_of[slot]] = stopwatch.Seconds() - started[slot];
        }
        free.push_back(slot);
        ++done;
      }
    }
    if (kind == Kind::kWrite && fdatasync(files_.front()) < 0) {
      return Failed("fdatasync", errno);
    }
    return stopwatch.Seconds();
  }

 private:
  std::byte* Buffer(unsigned slot) const {
    return static_cast<std::byte*>(buffers_) + slot * kBufferBytes;
  }

  void Prepare(Kind kind, const Request& request, unsigned slot) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    const auto bytes = static_cast<unsigned>(request.bytes);
    if (kind == Kind::kRead) {
      io_uring_prep_read_fixed(sqe, request.file, Buffer(slot), bytes, request.offset,
                               static_cast<int>(slot));
    } else {
      io_uring_prep_write_fixed(sqe, request.file, Buffer(slot), bytes, request.offset,
                                static_cast<int>(slot));
    }
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, slot);
  }

  std::vector<UniqueFd> owned_;
  std::vector<int> files_;  // their numbers
  std::vector<uint64_t> file_bytes_;
  void* buffers_ = MAP_FAILED;
  io_uring ring_;
  bool ring_made_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RawDisk>> RawDisk::Create(const std::string& directory,
                                                         uint64_t bytes) {
  auto disk = std::make_unique<RingDisk>();
  if (absl::Status status = disk->Make(directory, bytes); !status.ok()) return status;
  return disk;
}

absl::StatusOr<std::unique_ptr<RawDisk>> RawDisk::OpenSegments(
    const std::string& directory) {
  auto disk = std::make_unique<RingDisk>();
  if (absl::Status status = disk->Open(directory); !status.ok()) return status;
  return disk;
}

}  // namespace kvtier::bench
