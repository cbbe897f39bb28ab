#include "tiers/disk/catalog.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kvtier::tiers {
namespace {

// Part of what is allowed for the catalog's memory: the rest is its block cache.
constexpr uint64_t kWriteBufferShare = 2;

absl::Status ToStatus(const rocksdb::Status& s, const std::string& path) {
  if (s.ok()) return absl::OkStatus();
  const std::string message = absl::StrCat("catalog ", path, ": ", s.ToString());
  if (s.IsNoSpace()) {
    return absl::ResourceExhaustedError(
        absl::StrCat(message, ": free some space, or lower [disk] capacity"));
  }
  if (s.IsCorruption()) return absl::DataLossError(message);
  return absl::UnavailableError(
      absl::StrCat(message, ": see that its file system can be written to"));
}

// RocksDB says so in words only: of another process's lock, and of its own. A lock file
// that can't be opened is another matter.
bool IsInUse(const rocksdb::Status& s) {
  const std::string text = s.ToString();
  return s.IsIOError() && (absl::StrContains(text, "While lock file") ||
                           absl::StrContains(text, "lock hold by current process"));
}

absl::Status InUse(const rocksdb::Status& s) {
  return absl::FailedPreconditionError(
      absl::StrCat("the disk tier's directory is in use by another process (",
                   s.ToString(), "): stop it first"));
}

std::string PathIn(const std::string& directory) {
  return absl::StrCat(directory, "/catalog");
}

// What matters comes as a status; a log of its own would grow unseen.
class NoLog final : public rocksdb::Logger {
 public:
  using Logger::Logv;
  void Logv(const char*, va_list) override {}
};

rocksdb::Options MakeOptions(rocksdb::Env* env, uint64_t cache_bytes) {
  rocksdb::Options options;
  options.env = env;
  options.create_if_missing = true;
  options.write_buffer_size = cache_bytes / kWriteBufferShare / 2;
  options.max_write_buffer_number = 2;
  options.compression = rocksdb::kNoCompression;  // names are hashes
  options.max_background_jobs = 2;
  options.avoid_flush_during_shutdown = true;  // every write is in the synced log
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.info_log = std::make_shared<NoLog>();
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.max_open_files = 64;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(cache_bytes - cache_bytes / kWriteBufferShare);
  table.cache_index_and_filter_blocks = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::ReadOptions ScanOptions() {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  options.readahead_size = 2 << 20;
  return options;
}

// Walks the heats beside the chunks: both are in the order of names.
class HeatIterator {
 public:
  explicit HeatIterator(rocksdb::Iterator* it) : it_(it) {
    it_->Seek(rocksdb::Slice(&kHeatKey, 1));
  }

  // Of ascending names.
  std::optional<Heat> Of(const ChunkName& name) {
    const std::string_view bytes(reinterpret_cast<const char*>(name.bytes.data()),
                                 name.bytes.size());
    for (; it_->Valid(); it_->Next()) {
      std::string_view key = it_->key().ToStringView();
      if (!DecodeHeatKey(key)) return std::nullopt;  // past the last one
      key.remove_prefix(1);
      if (key == bytes) return DecodeHeat(it_->value().ToStringView());
      if (key > bytes) return std::nullopt;
    }
    return std::nullopt;
  }

 private:
  const std::unique_ptr<rocksdb::Iterator> it_;
};

}  // namespace

Catalog::Catalog(std::string path, rocksdb::Env* env, uint64_t cache_bytes)
    : path_(std::move(path)), env_(env), cache_bytes_(cache_bytes) {}

Catalog::~Catalog() = default;

absl::StatusOr<std::unique_ptr<Catalog>> Catalog::Open(const std::string& directory,
                                                       rocksdb::Env* env,
                                                       uint64_t cache_bytes,
                                                       bool* is_new) {
  if (env == nullptr) env = rocksdb::Env::Default();
  if (rocksdb::Status s = env->CreateDirIfMissing(directory); !s.ok()) {
    return ToStatus(s, directory);
  }
  std::unique_ptr<Catalog> catalog(new Catalog(PathIn(directory), env, cache_bytes));
  if (absl::Status s = catalog->OpenDatabase(); !s.ok()) return s;
  if (absl::Status s = catalog->CheckSuperblock(is_new); !s.ok()) return s;
  return catalog;
}

absl::Status Catalog::Destroy(const std::string& directory) {
  const std::string path = PathIn(directory);
  if (rocksdb::Env::Default()->FileExists(path).IsNotFound()) return absl::OkStatus();
  rocksdb::Options options;
  options.info_log = std::make_shared<NoLog>();
  const rocksdb::Status s = rocksdb::DestroyDB(path, options);
  return IsInUse(s) ? InUse(s) : ToStatus(s, path);
}

absl::Status Catalog::OpenDatabase() {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status s =
      rocksdb::DB::Open(MakeOptions(env_, cache_bytes_), path_, &db);
  db_.reset(db);
  if (s.ok()) return absl::OkStatus();
  if (IsInUse(s)) return InUse(s);
  const std::string text = s.ToString();
  if (s.IsCorruption() || s.IsInvalidArgument()) {
    return absl::DataLossError(absl::StrCat(
        "the disk tier's catalog does not open: ", text,
        ". What it named is lost; `kvtierd --wipe` empties the directory and starts "
        "afresh"));
  }
  return ToStatus(s, path_);
}

absl::Status Catalog::CheckSuperblock(bool* is_new) {
  Superblock superblock;
  std::string value;
  const std::string key(1, kSuperblockKey);
  const rocksdb::Status s = db_->Get(rocksdb::ReadOptions(), key, &value);
  *is_new = s.IsNotFound();
  if (s.ok()) {
    const std::optional<Superblock> decoded = DecodeSuperblock(value);
    if (!decoded) {
      return absl::DataLossError(absl::StrCat(
          "catalog ", path_,
          ": its superblock can't be read; `kvtierd --wipe` empties the directory"));
    }
    superblock = *decoded;
    if (superblock.version != kFormatVersion) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the disk tier's directory has format version ", superblock.version,
          ", this kvtierd reads version ", kFormatVersion,
          ": run the kvtierd that wrote it, or `kvtierd --wipe` to empty the directory"));
    }
  } else if (!s.IsNotFound()) {
    return ToStatus(s, path_);
  }
  starts_ = ++superblock.starts;
  rocksdb::WriteOptions synced;
  synced.sync = true;
  return ToStatus(db_->Put(synced, key, EncodeSuperblock(superblock)), path_);
}

absl::Status Catalog::Unreadable(const char* what) const {
  return absl::DataLossError(
      absl::StrCat("catalog ", path_, ": ", what,
                   " can't be read; `kvtierd --wipe` empties the directory and starts "
                   "afresh"));
}

absl::Status Catalog::LoadGeometries(
    const std::function<void(uint32_t, DiskGeometry)>& on_geometry) {
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(ScanOptions()));
  for (it->Seek(rocksdb::Slice(&kGeometryKey, 1)); it->Valid(); it->Next()) {
    const std::optional<uint32_t> id = DecodeGeometryKey(it->key().ToStringView());
    if (!id) break;
    std::optional<DiskGeometry> geometry = DecodeGeometry(it->value().ToStringView());
    if (!geometry) return Unreadable("a geometry");
    on_geometry(*id, *std::move(geometry));
  }
  return ToStatus(it->status(), path_);
}

absl::Status Catalog::LoadChunks(
    const std::function<void(const ChunkName&, const ChunkRecord&, std::optional<Heat>)>&
        on_chunk) {
  HeatIterator heats(db_->NewIterator(ScanOptions()));
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(ScanOptions()));
  for (it->Seek(rocksdb::Slice(&kChunkKey, 1)); it->Valid(); it->Next()) {
    const std::optional<ChunkName> name = DecodeChunkKey(it->key().ToStringView());
    if (!name) break;
    const std::optional<ChunkRecord> record =
        DecodeChunkRecord(it->value().ToStringView());
    if (!record) return Unreadable("a chunk's record");
    on_chunk(*name, *record, heats.Of(*name));
  }
  return ToStatus(it->status(), path_);
}

absl::Status Catalog::Write(const std::vector<CatalogChange>& changes) {
  if (db_ == nullptr) return absl::UnavailableError("the catalog is closed");
  rocksdb::WriteBatch batch;
  for (const CatalogChange& change : changes) {
    switch (change.kind) {
      case CatalogChange::Kind::kPutChunk:
        batch.Put(ChunkKey(change.name), EncodeChunkRecord(change.record));
        break;
      case CatalogChange::Kind::kDeleteChunk:
        batch.Delete(ChunkKey(change.name));
        batch.Delete(HeatKey(change.name));
        break;
      case CatalogChange::Kind::kPutHeat:
        batch.Put(HeatKey(change.name), EncodeHeat(change.heat));
        break;
      case CatalogChange::Kind::kPutGeometry:
        batch.Put(GeometryKey(change.record.geometry), EncodeGeometry(*change.geometry));
        break;
    }
  }
  rocksdb::WriteOptions options;
  options.sync = std::any_of(changes.begin(), changes.end(), [](const auto& change) {
    return change.kind != CatalogChange::Kind::kPutHeat;
  });
  return ToStatus(db_->Write(options, &batch), path_);
}

absl::Status Catalog::Recover() {
  // Not DB::Resume: it writes on to files that had an error, which RocksDB asserts
  // against.
  db_.reset();
  return OpenDatabase();
}

}  // namespace kvtier::tiers
