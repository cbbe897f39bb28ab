// The disk tier's catalog: name -> extent, kept in RocksDB. The only door to it.
//
// Thread safety: one caller at a time.

#ifndef KVTIER_TIERS_DISK_CATALOG_H_
#define KVTIER_TIERS_DISK_CATALOG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tiers/disk/catalog_records.h"

namespace rocksdb {
class DB;
class Env;
}  // namespace rocksdb

namespace kvtier::tiers {

struct CatalogChange {
  // kDeleteChunk deletes the heat too.
  enum class Kind : uint8_t { kPutChunk, kDeleteChunk, kPutGeometry, kPutHeat };
  Kind kind = Kind::kPutChunk;
  ChunkName name{};
  ChunkRecord record{};                    // of kPutChunk; its geometry of kPutGeometry
  const DiskGeometry* geometry = nullptr;  // of kPutGeometry
  Heat heat{};                             // of kPutHeat
};

class Catalog {
 public:
  // Opens or makes the catalog; counts the start in the superblock, durably.
  //   is_new: nothing was there before
  // FailedPrecondition: another format version, or in use. DataLoss: does not open.
  // ResourceExhausted, Unavailable: no space, I/O error.
  static absl::StatusOr<std::unique_ptr<Catalog>> Open(const std::string& directory,
                                                       rocksdb::Env* env,
                                                       uint64_t cache_bytes,
                                                       bool* is_new);
  // Removes the catalog of `directory`, whatever its state or version.
  // FailedPrecondition: in use. Unavailable: I/O error.
  static absl::Status Destroy(const std::string& directory);
  Catalog(const Catalog&) = delete;  // owns the database
  Catalog& operator=(const Catalog&) = delete;
  ~Catalog();

  // How often the directory was opened, this time included.
  uint32_t starts() const { return starts_; }

  // Read everything. DataLoss: a record can't be read.
  absl::Status LoadGeometries(
      const std::function<void(uint32_t, DiskGeometry)>& on_geometry);
  // Heat that can't be read is as if it had not been written.
  absl::Status LoadChunks(const std::function<void(const ChunkName&, const ChunkRecord&,
                                                   std::optional<Heat>)>& on_chunk);

  // All of them or none, in order, durably; heats alone are in order but not synced.
  // After an error it is not known which, and nothing is written until Recover succeeds.
  // Unavailable, ResourceExhausted.
  absl::Status Write(const std::vector<CatalogChange>& changes);
  // Makes the catalog writable again after an error.
  absl::Status Recover();

 private:
  Catalog(std::string path, rocksdb::Env* env, uint64_t cache_bytes);

  absl::Status OpenDatabase();
  absl::Status Unreadable(const char* what) const;
  absl::Status CheckSuperblock(bool* is_new);

  // Constant after construction.
  const std::string path_;
  rocksdb::Env* const env_;
  const uint64_t cache_bytes_;

  std::unique_ptr<rocksdb::DB> db_;
  uint32_t starts_ = 0;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_CATALOG_H_
