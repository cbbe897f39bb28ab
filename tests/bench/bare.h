// The wire's ceiling: bare gRPC between this process and one that only moves bytes, over
// a Unix socket, with the daemon's and the client library's channel settings.
//
// Owns the other process. Thread safety: one thread at a time.

#ifndef KVTIER_TESTS_BENCH_BARE_H_
#define KVTIER_TESTS_BENCH_BARE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace kvtier::bench {

class BareWire {
 public:
  static absl::StatusOr<std::unique_ptr<BareWire>> Start();

  virtual ~BareWire() = default;

  // One stream of messages of these sizes, there and back. Each returns its seconds.
  virtual absl::StatusOr<double> Send(absl::Span<const uint64_t> message_bytes) = 0;
  virtual absl::StatusOr<double> Receive(absl::Span<const uint64_t> message_bytes) = 0;

  // One message there and several back, on a stream that stays open.
  virtual absl::StatusOr<double> Trip(uint64_t message_bytes,
                                      absl::Span<const uint64_t> answer_bytes) = 0;
};

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_BARE_H_
