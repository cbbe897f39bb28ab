// The store: the tiers, and over them the namespaces with their models and sessions.
// Everything the daemon does except talking: no gRPC here.
//
//   Store --owns--> HostTier, DiskTier, Directory
//         --owns--> Namespace --owns--> models, Session --owns--> Sequence
//   Sequence --refers to--> sealed chunks in the Directory, --owns--> its tail
//
// Thread safety: all classes here have internal synchronization. Pointers to namespaces
// stay valid as long as the store.

#ifndef KVTIER_DAEMON_STORE_H_
#define KVTIER_DAEMON_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "daemon/session.h"
#include "daemon/store_limits.h"
#include "kernels/base/types.h"
#include "retrieval/model_spec.h"

namespace kvtier::daemon {

struct StoreOptions {
  // Hard limit on what the host tier and everything kept per chunk and per sequence
  // may take together.
  uint64_t host_capacity_bytes = uint64_t{4} << 30;
  // Unit in which memory is taken and given back; small enough that a small budget
  // holds several.
  uint64_t host_region_bytes = uint64_t{8} << 20;
  // Rows one session may have appended and not sealed. A prompt prefilled in one piece
  // is unsealed as a whole until its last layer.
  uint64_t unsealed_bytes_max = uint64_t{1} << 30;
  uint32_t sequences_max = 1024;  // per session
  uint32_t sessions_max = 256;    // per namespace
  uint32_t models_max = 64;       // per namespace

  // Where the disk tier lives; empty: host memory is the last tier.
  std::string disk_directory;
  // Hard limit on what it takes there, physically.
  uint64_t disk_capacity_bytes = uint64_t{64} << 30;
  // How long the device may take to answer one request.
  absl::Duration disk_deadline = absl::Seconds(30);
  // Rate at which what is stored is read and verified in the background; 0: not.
  uint64_t disk_scrub_bytes = uint64_t{16} << 20;

  absl::Status Validate() const;
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

// What a model's KV costs, for each chunk and all layers.
struct ModelInfo {
  std::string label;
  retrieval::ModelDigest digest{};
  uint32_t layers = 0;
  DType dtype = DType::kF32;
  uint64_t rows_bytes = 0;
  uint64_t abstract_bytes = 0;
  uint64_t table_bytes = 0;
  uint64_t disk_bytes = 0;
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
  struct Eviction {
    std::string reason;  // as admin.proto lists them
    uint64_t chunks = 0;
  };
  std::vector<Eviction> evictions;
  uint64_t written_bytes = 0;
  uint64_t read_bytes = 0;
  // Of chunks that are also on the tier below.
  uint64_t dropped_pages = 0;
  // Disk only; what they mean is said in admin.proto.
  uint64_t lost_chunks = 0;
  uint64_t hole_chunks = 0;
  uint64_t unwritten_chunks = 0;
  uint64_t writing_chunks = 0;
  // What is not as it should be, for people; empty when all is well.
  std::vector<std::string> complaints;
};

class Namespace {
 public:
  virtual ~Namespace() = default;

  virtual const std::string& name() const = 0;

  virtual absl::StatusOr<retrieval::ModelDigest> RegisterModel(
      const retrieval::ModelSpec& model) = 0;

  virtual absl::StatusOr<std::shared_ptr<Session>> OpenSession(std::string worker_label,
                                                               uint64_t worker_pid) = 0;
  // NotFound: never opened, or closed.
  virtual absl::StatusOr<std::shared_ptr<Session>> FindSession(SessionId id) = 0;
  // Closes all its sequences. Closing one that is closed does nothing.
  virtual void CloseSession(SessionId id) = 0;

  virtual std::vector<std::shared_ptr<Session>> Sessions() const = 0;
  virtual std::vector<ModelInfo> Models() const = 0;

  // Keeps what an open sequence has sealed until Unpin, whatever becomes of it. Again:
  // what it has sealed since, too. Returns the bytes. NotFound.
  virtual absl::StatusOr<uint64_t> Pin(SequenceId sequence) = 0;
  // 0: everything. Returns how many sequences' pins that were.
  virtual size_t Unpin(SequenceId sequence) = 0;

  virtual NamespaceStats Stats() const = 0;
};

struct DiskEvent;  // disk_health.h

class Store {
 public:
  // Opens the disk tier, if one is configured. Blocking.
  // Errors: StoreOptions::Validate, DiskTier::Open, RingIo::Open. ResourceExhausted:
  // what the disk tier takes in memory is more than host_capacity_bytes.
  static absl::StatusOr<std::unique_ptr<Store>> Create(const StoreOptions& options);

  virtual ~Store() = default;

  virtual const StoreLimits& limits() const = 0;
  // Takes over the limits and the host tier's capacity; the other options stay as they
  // are. A smaller capacity evicts; what open sequences hold above it stays until they
  // close. InvalidArgument: StoreOptions::Validate.
  virtual absl::Status Reconfigure(const StoreOptions& options) = 0;
  // AlreadyExists; InvalidArgument: a name not of [a-z0-9_-], 1..64 characters.
  virtual absl::StatusOr<Namespace*> AddNamespace(std::string name) = 0;
  virtual std::vector<Namespace*> Namespaces() const = 0;
  virtual std::vector<TierStats> Tiers() const = 0;
  // Whom to tell when the disk tier begins and ceases to fail, on a thread of the
  // store's; null: nobody any more. Without a disk tier nothing befalls it.
  virtual void WatchDisk(std::function<void(const DiskEvent&)> watcher) = 0;

  // Evicts cached chunks that nobody uses from host memory, coldest first, until so many
  // bytes came free or none is left. Returns the bytes.
  virtual uint64_t Evict(uint64_t bytes) = 0;
  // Reads everything in the named tier ("host", "disk"; empty: all) and compares the
  // checksums. Blocking, as long as that takes; others go on.
  // NotFound: there is no such tier.
  struct VerifyResult {
    uint64_t pages = 0;
    uint64_t bad_pages = 0;             // pages in memory, chunks on disk
    std::vector<std::string> findings;  // for people, of the first bad ones
  };
  virtual absl::StatusOr<VerifyResult> Verify(const std::string& tier) = 0;

  // Returns when all that was sealed before is on disk. Blocking.
  // FailedPrecondition: there is no disk tier. ResourceExhausted, Unavailable: its
  // errors.
  virtual absl::Status Flush() = 0;
  // Admits no more sessions and sequences, for good.
  virtual void StartDraining() = 0;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_STORE_H_
