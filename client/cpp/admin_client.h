// What an operator asks of kvtierd, over its admin socket. Every call has a deadline and
// none hangs: a daemon that is gone gives Unavailable.
//
// Thread safety: all methods, from any thread.

#ifndef KVTIER_CLIENT_CPP_ADMIN_CLIENT_H_
#define KVTIER_CLIENT_CPP_ADMIN_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kvtier::client {

struct AdminOptions {
  std::string socket = "/run/kvtier/admin.sock";
  absl::Duration deadline = absl::Seconds(5);
};

struct TierStats {
  std::string tier;
  uint64_t capacity_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t pages = 0;
  uint64_t chunks = 0;
  uint64_t hit_chunks = 0;
  uint64_t miss_chunks = 0;
  uint64_t evicted_chunks = 0;
  uint64_t written_bytes = 0;
  uint64_t read_bytes = 0;
  uint64_t dropped_pages = 0;
  uint64_t lost_chunks = 0;
  uint64_t unwritten_chunks = 0;
  uint64_t hole_chunks = 0;
  uint64_t writing_chunks = 0;
  std::vector<std::string> complaints;
  struct Eviction {
    std::string reason;
    uint64_t chunks = 0;
  };
  std::vector<Eviction> evictions;
};

struct NamespaceStats {
  std::string name;
  uint32_t models = 0;
  uint32_t sessions = 0;
  uint32_t sequences = 0;
  uint64_t chunks = 0;
  uint64_t unsealed_bytes = 0;
  uint64_t appended_tokens = 0;
  uint64_t retrieve_items = 0;
  uint64_t pinned_chunks = 0;
  uint64_t pinned_bytes = 0;
  uint64_t disk_bytes = 0;
};

struct Stats {
  std::string daemon_version;
  uint64_t uptime_seconds = 0;
  uint64_t resident_bytes = 0;
  std::vector<TierStats> tiers;
  std::vector<NamespaceStats> namespaces;
  bool draining = false;
};

struct SequenceInfo {
  std::string namespace_name;
  uint64_t sequence_id = 0;
  uint64_t session_id = 0;
  std::string model_label;
  std::string system;
  uint32_t budget_tokens = 0;
  uint64_t sealed_tokens = 0;
  uint64_t tail_tokens = 0;
  uint64_t cached_tokens = 0;
};

struct SessionInfo {
  std::string namespace_name;
  uint64_t session_id = 0;
  std::string worker_label;
  uint64_t worker_pid = 0;
  uint64_t age_seconds = 0;
  uint32_t sequences = 0;
  uint64_t unsealed_bytes = 0;
};

// Bytes are of one chunk, at all layers.
struct ModelInfo {
  std::string namespace_name;
  std::string label;
  std::string digest;  // in hexadecimal
  uint32_t layers = 0;
  std::string dtype;
  uint32_t chunk_tokens = 0;
  uint64_t rows_bytes = 0;
  uint64_t abstract_bytes = 0;
  uint64_t table_bytes = 0;
  uint64_t disk_bytes = 0;
};

struct Verified {
  uint64_t pages = 0;
  uint64_t bad_pages = 0;
  std::vector<std::string> findings;
};

class AdminClient {
 public:
  // Doesn't connect yet: the first call does.
  static absl::StatusOr<std::unique_ptr<AdminClient>> Create(const AdminOptions& options);

  virtual ~AdminClient() = default;

  virtual absl::StatusOr<Stats> GetStats() = 0;

  // Calls `sink` with the stats at once and then once per interval (100 ms to 1 h),
  // until it returns false. The deadline is for each message, beyond the interval.
  virtual absl::Status WatchStats(absl::Duration interval,
                                  absl::FunctionRef<bool(const Stats&)> sink) = 0;

  // Of one namespace; empty: of all.
  virtual absl::StatusOr<std::vector<SequenceInfo>> ListSequences(
      const std::string& namespace_name) = 0;
  virtual absl::StatusOr<std::vector<SessionInfo>> ListSessions(
      const std::string& namespace_name) = 0;

  virtual absl::StatusOr<std::vector<ModelInfo>> ListModels(
      const std::string& namespace_name) = 0;

  // Keeps what an open sequence has sealed; returns its bytes. Empty namespace: any.
  virtual absl::StatusOr<uint64_t> Pin(const std::string& namespace_name,
                                       uint64_t sequence) = 0;
  // 0: all that is pinned.
  virtual absl::Status Unpin(const std::string& namespace_name, uint64_t sequence) = 0;
  // Returns when all that was sealed is on disk. DeadlineExceeded: it takes longer than
  // that and the usual deadline; the daemon goes on.
  virtual absl::Status Flush(absl::Duration patience) = 0;
  // Admits nothing new, waits that long for the sessions to end, and flushes.
  virtual absl::Status Drain(absl::Duration patience) = 0;

  // Evicts what nobody uses from host memory; 0: all of it. Returns the bytes freed.
  virtual absl::StatusOr<uint64_t> Evict(uint64_t bytes) = 0;
  // Compares the checksums of everything in a tier; empty: in all. Takes as long as
  // reading it: its deadline is an hour.
  virtual absl::StatusOr<Verified> Verify(const std::string& tier) = 0;
};

}  // namespace kvtier::client

#endif  // KVTIER_CLIENT_CPP_ADMIN_CLIENT_H_
