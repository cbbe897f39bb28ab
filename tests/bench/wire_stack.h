// What a bench on the wire stands on: a real kvtierd with a client, and the bare wire
// beside it.
//
// Thread safety: one thread at a time.

#ifndef KVTIER_TESTS_BENCH_WIRE_STACK_H_
#define KVTIER_TESTS_BENCH_WIRE_STACK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/admin_client.h"
#include "client/cpp/client.h"
#include "tests/bench/bare.h"
#include "tests/bench/rows.h"
#include "tests/daemon/kvtierd_process.h"

namespace kvtier::bench {

// Tokens of one Append call: what a worker prefills in one piece.
inline constexpr uint32_t kPieceTokens = 8192;

// A little more than rows of `tokens` and their abstracts take, as the daemon's budget.
uint64_t CapacityFor(uint64_t tokens, uint32_t layers);

struct WireOptions {
  uint64_t host_capacity_bytes = 0;
  uint32_t layers = 0;
  retrieval::AbstractSet abstracts = {};
  // Empty: no disk tier.
  std::string disk_directory = "";
  uint64_t disk_capacity_bytes = 0;
};

class WireStack {
 public:
  static absl::StatusOr<std::unique_ptr<WireStack>> Start(const WireOptions& options);

  client::Client& client() { return *client_; }
  BareWire& bare() { return *bare_; }

  // Opens a sequence whose tokens no other shares.
  absl::StatusOr<SequenceId> Open(uint64_t tokens,
                                  const retrieval::SystemOptions& retrieval);
  // Opens the last one's tokens again.
  absl::StatusOr<client::OpenedSequence> Reopen(
      uint64_t tokens, const retrieval::SystemOptions& retrieval);
  // Fills it: in pieces, each at all layers.
  absl::Status Fill(SequenceId sequence, uint64_t tokens, uint32_t layers,
                    const ContextRows& rows);
  // Appends one piece, dense: [kv_head][token][dim] keys, and values as many.
  absl::Status Append(SequenceId sequence, uint32_t layer, uint64_t start, uint32_t count,
                      const std::byte* keys, const std::byte* values);
  // Sizes of the messages that such an append is sent in.
  absl::StatusOr<std::vector<uint64_t>> AppendMessages(uint32_t count,
                                                       const std::byte* keys,
                                                       const std::byte* values) const;
  // The daemon gives back the memory of what no sequence uses.
  absl::Status EvictAll();
  // Read from the device since the daemon's start.
  absl::StatusOr<uint64_t> DiskReadBytes();

 private:
  explicit WireStack(const WireOptions& options);
  absl::StatusOr<client::OpenedSequence> OpenLast(
      uint64_t tokens, const retrieval::SystemOptions& retrieval);

  testing::KvtierdProcess daemon_;
  std::unique_ptr<client::AdminClient> admin_;
  std::unique_ptr<client::Client> client_;
  std::unique_ptr<BareWire> bare_;
  retrieval::ModelDigest model_{};
  uint32_t sequences_ = 0;  // opened so far
};

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_WIRE_STACK_H_
