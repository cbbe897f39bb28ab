#include "tests/sim/virtual_files.h"

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/sim/virtual_file_handles.h"

namespace kvtier::tiers::sim {
namespace {

class Lock final : public rocksdb::FileLock {
 public:
  explicit Lock(std::string path) : path(std::move(path)) {}
  const std::string path;
};

class NoLogger final : public rocksdb::Logger {
 public:
  using Logger::Logv;
  void Logv(const char*, va_list) override {}
};

class FileSystem final : public rocksdb::FileSystem {
 public:
  explicit FileSystem(StateRef state) : state_(std::move(state)) {}
  const char* Name() const override { return "VirtualFiles"; }

  IOStatus NewSequentialFile(const std::string& path, const FileOptions&,
                             std::unique_ptr<rocksdb::FSSequentialFile>* result,
                             IODebugContext*) override {
    return OpenFile<SequentialFile>(path, result);
  }
  IOStatus NewRandomAccessFile(const std::string& path, const FileOptions&,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                               IODebugContext*) override {
    return OpenFile<RandomAccessFile>(path, result);
  }
  IOStatus ReopenWritableFile(const std::string& path, const FileOptions&,
                              std::unique_ptr<rocksdb::FSWritableFile>* result,
                              IODebugContext*) override {
    return OpenFile<WritableFile>(path, result);
  }
  IOStatus NewWritableFile(const std::string& path, const FileOptions&,
                           std::unique_ptr<rocksdb::FSWritableFile>* result,
                           IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Change(); !s.ok()) return s;
    auto file = std::make_shared<File>();
    state_->Rename({.from = "", .to = Clean(path), .file = file});
    result->reset(new WritableFile(state_, file));
    return IOStatus::OK();
  }
  IOStatus NewDirectory(const std::string& path, const IOOptions&,
                        std::unique_ptr<rocksdb::FSDirectory>* result,
                        IODebugContext*) override {
    result->reset(new Directory(state_, Clean(path)));
    return IOStatus::OK();
  }
  IOStatus FileExists(const std::string& path, const IOOptions&,
                      IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Check(); !s.ok()) return s;
    return state_->names.contains(Clean(path)) ? IOStatus::OK()
                                               : IOStatus::NotFound(path);
  }
  IOStatus GetChildren(const std::string& path, const IOOptions&,
                       std::vector<std::string>* result, IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Check(); !s.ok()) return s;
    result->clear();
    const std::string directory = Clean(path);
    for (const auto& [name, file] : state_->names) {
      if (DirectoryOf(name) == directory)
        result->push_back(name.substr(directory.size() + 1));
    }
    return IOStatus::OK();
  }
  IOStatus DeleteFile(const std::string& path, const IOOptions&,
                      IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    // Deleting needs no space.
    if (IOStatus s = state_->Change(); !s.ok() && !s.IsNoSpace()) return s;
    if (!state_->names.contains(Clean(path))) return IOStatus::NotFound(path);
    state_->Rename({.from = Clean(path), .to = "", .file = nullptr});
    return IOStatus::OK();
  }
  IOStatus CreateDir(const std::string&, const IOOptions&, IODebugContext*) override {
    return IOStatus::OK();
  }
  IOStatus CreateDirIfMissing(const std::string&, const IOOptions&,
                              IODebugContext*) override {
    return IOStatus::OK();
  }
  IOStatus DeleteDir(const std::string&, const IOOptions&, IODebugContext*) override {
    return IOStatus::OK();
  }
  IOStatus GetFileSize(const std::string& path, const IOOptions&, uint64_t* size,
                       IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Check(); !s.ok()) return s;
    const auto it = state_->names.find(Clean(path));
    if (it == state_->names.end()) return IOStatus::NotFound(path);
    *size = it->second->bytes.size();
    return IOStatus::OK();
  }
  IOStatus GetFileModificationTime(const std::string&, const IOOptions&, uint64_t* time,
                                   IODebugContext*) override {
    *time = 0;
    return IOStatus::OK();
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions&,
                      IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Change(); !s.ok()) return s;
    const auto it = state_->names.find(Clean(from));
    if (it == state_->names.end()) return IOStatus::NotFound(from);
    state_->Rename({.from = Clean(from), .to = Clean(to), .file = it->second});
    return IOStatus::OK();
  }
  IOStatus LockFile(const std::string& path, const IOOptions&, rocksdb::FileLock** lock,
                    IODebugContext*) override {
    std::lock_guard<std::mutex> guard(state_->mu);
    if (IOStatus s = state_->Check(); !s.ok()) return s;
    if (!state_->locks.insert(Clean(path)).second) {
      return IOStatus::IOError("lock hold by current process: " + path);
    }
    *lock = new Lock(Clean(path));
    return IOStatus::OK();
  }
  IOStatus UnlockFile(rocksdb::FileLock* lock, const IOOptions&,
                      IODebugContext*) override {
    std::lock_guard<std::mutex> guard(state_->mu);
    state_->locks.erase(static_cast<Lock*>(lock)->path);
    delete static_cast<Lock*>(lock);
    return IOStatus::OK();
  }
  IOStatus GetTestDirectory(const IOOptions&, std::string* path,
                            IODebugContext*) override {
    *path = "/test";
    return IOStatus::OK();
  }
  IOStatus NewLogger(const std::string&, const IOOptions&,
                     std::shared_ptr<rocksdb::Logger>* result, IODebugContext*) override {
    *result = std::make_shared<NoLogger>();
    return IOStatus::OK();
  }
  IOStatus GetAbsolutePath(const std::string& path, const IOOptions&, std::string* result,
                           IODebugContext*) override {
    *result = path;
    return IOStatus::OK();
  }
  IOStatus IsDirectory(const std::string& path, const IOOptions&, bool* is_directory,
                       IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    *is_directory = !state_->names.contains(Clean(path));
    return IOStatus::OK();
  }

 private:
  template <typename Opened, typename Base>
  IOStatus OpenFile(const std::string& path, std::unique_ptr<Base>* result) {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Check(); !s.ok()) return s;
    const auto it = state_->names.find(Clean(path));
    if (it == state_->names.end()) return IOStatus::PathNotFound(path);
    result->reset(new Opened(state_, it->second));
    return IOStatus::OK();
  }

  const StateRef state_;
};

// RocksDB pauses for a second after an error in its background: not in virtual time.
class VirtualEnv final : public rocksdb::EnvWrapper {
 public:
  explicit VirtualEnv(const std::shared_ptr<rocksdb::FileSystem>& files)
      : EnvWrapper(rocksdb::NewCompositeEnv(files)) {
    file_system_ = files;
  }
  void SleepForMicroseconds(int micros) override {
    EnvWrapper::SleepForMicroseconds(std::min(micros, 50));
  }
};

class VirtualFilesImpl final : public VirtualFiles {
 public:
  explicit VirtualFilesImpl(const FileImages& images)
      : state_(std::make_shared<State>()) {
    for (const auto& [path, bytes] : images) {
      state_->names[path] = std::make_shared<File>(File{bytes, bytes.size()});
    }
    state_->durable_names = state_->names;
    env_ = std::make_unique<VirtualEnv>(std::make_shared<FileSystem>(state_));
  }
  rocksdb::Env* env() override { return env_.get(); }
  void PowerOffAfter(uint64_t operations) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    state_->operations_left = operations;
  }
  bool is_off() const override {
    std::lock_guard<std::mutex> lock(state_->mu);
    return state_->off;
  }
  FileImages PowerOff(Random& random) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    state_->off = true;
    Names names = state_->durable_names;
    const uint64_t kept = Below(random, state_->changes.size() + 1);
    for (uint64_t i = 0; i < kept; ++i) state_->changes[i].Apply(names);
    FileImages images;
    for (const auto& [path, file] : names) {
      const size_t unsynced = file->bytes.size() - file->synced;
      const size_t size =
          file->synced + (unsynced == 0 ? 0 : Below(random, unsynced + 1));
      std::string bytes = file->bytes.substr(0, size);
      for (size_t at = file->synced; at < size;) {
        const size_t end = std::min((at / kIoUnit + 1) * kIoUnit, size);
        if (Below(random, 4) == 0) std::fill(&bytes[at], &bytes[at] + (end - at), '\0');
        at = end;
      }
      images[path] = std::move(bytes);
    }
    return images;
  }
  FileImages Images() const override {
    std::lock_guard<std::mutex> lock(state_->mu);
    FileImages images;
    for (const auto& [path, file] : state_->names) images[path] = file->bytes;
    return images;
  }
  void SetFull(bool full) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    state_->full = full;
  }
  void SetSyncsFail(bool fail) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    state_->syncs_fail = fail;
  }

 private:
  const StateRef state_;
  std::unique_ptr<rocksdb::Env> env_;
};

}  // namespace

std::unique_ptr<VirtualFiles> VirtualFiles::Create(FileImages images) {
  return std::make_unique<VirtualFilesImpl>(images);
}

}  // namespace kvtier::tiers::sim
