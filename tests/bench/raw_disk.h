// What the device can do: requests of given offsets and lengths on files, by io_uring
// with O_DIRECT, registered files and registered buffers, and nothing else.
//
// Thread safety: one thread.

#ifndef KVTIER_TESTS_BENCH_RAW_DISK_H_
#define KVTIER_TESTS_BENCH_RAW_DISK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace kvtier::bench {

class RawDisk {
 public:
  struct Request {
    uint64_t offset = 0;  // offsets and lengths: multiples of 4096
    size_t bytes = 0;     // at most 1 MiB
    int file = 0;
  };
  enum class Kind { kRead, kWrite };

  // A file of `bytes`, allocated, not written. Removed with the object.
  // Unavailable: the message names the call that failed.
  static absl::StatusOr<std::unique_ptr<RawDisk>> Create(const std::string& directory,
                                                         uint64_t bytes);
  // The segments of a disk tier in `directory`, to be read only: where a file lies on the
  // device makes a difference of a fifth, so the probe reads where the tier reads.
  static absl::StatusOr<std::unique_ptr<RawDisk>> OpenSegments(
      const std::string& directory);
  virtual ~RawDisk() = default;

  virtual absl::Span<const uint64_t> file_bytes() const = 0;

  // Seconds of all requests, `depth` at a time; of writes with the fdatasync after them.
  //   latencies: out, seconds of each, if not null
  virtual absl::StatusOr<double> Run(Kind kind, const std::vector<Request>& requests,
                                     unsigned depth,
                                     std::vector<double>* latencies = nullptr) = 0;
};

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_RAW_DISK_H_
