#include "tests/sim/virtual_files.h"

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

namespace kvtier::tiers::sim {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

struct File {
  std::string bytes;
  size_t synced = 0;
};
using FileRef = std::shared_ptr<File>;
using Names = std::map<std::string, FileRef>;

std::string DirectoryOf(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

std::string Clean(std::string path) {
  for (size_t at; (at = path.find("//")) != std::string::npos;) path.erase(at, 1);
  if (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// A change of names. Empty `to`: a delete; empty `from`: a create.
struct NameChange {
  std::string from, to;
  FileRef file;

  void Apply(Names& names) const {
    if (!from.empty()) names.erase(from);
    if (!to.empty()) names[to] = file;
  }
  bool In(const std::string& directory) const {
    return DirectoryOf(to.empty() ? from : to) == directory;
  }
};

// The state that all open files share.
struct State {
  std::mutex mu;
  Names names;          // as programs see them
  Names durable_names;  // by the directories' last fsyncs
  std::vector<NameChange> changes;
  std::set<std::string> locks;
  bool off = false;
  bool full = false;
  bool syncs_fail = false;
  uint64_t operations_left = UINT64_MAX;

  IOStatus Check() const {
    return off ? IOStatus::IOError("the power is off") : IOStatus::OK();
  }
  // Before a change.
  IOStatus Change() {
    if (operations_left == 0) off = true;
    if (operations_left != UINT64_MAX && operations_left > 0) --operations_left;
    if (off) return IOStatus::IOError("the power is off");
    return full ? IOStatus::NoSpace("the disk is full") : IOStatus::OK();
  }
  void Rename(NameChange change) {
    change.Apply(names);
    changes.push_back(std::move(change));
  }
};
using StateRef = std::shared_ptr<State>;

class SequentialFile final : public rocksdb::FSSequentialFile {
 public:
  SequentialFile(StateRef state, FileRef file)
      : state_(std::move(state)), file_(std::move(file)) {}
  IOStatus Read(size_t n, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Check(); !s.ok()) return s;
    n = std::min(n, file_->bytes.size() - std::min(at_, file_->bytes.size()));
    std::memcpy(scratch, file_->bytes.data() + at_, n);
    at_ += n;
    *result = Slice(scratch, n);
    return IOStatus::OK();
  }
  IOStatus Skip(uint64_t n) override {
    at_ += n;
    return IOStatus::OK();
  }

 private:
  const StateRef state_;
  const FileRef file_;
  size_t at_ = 0;
};

class RandomAccessFile final : public rocksdb::FSRandomAccessFile {
 public:
  RandomAccessFile(StateRef state, FileRef file)
      : state_(std::move(state)), file_(std::move(file)) {}
  IOStatus Read(uint64_t offset, size_t n, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Check(); !s.ok()) return s;
    const size_t size = file_->bytes.size();
    n = std::min<size_t>(n, size - std::min<size_t>(offset, size));
    if (n > 0) std::memcpy(scratch, file_->bytes.data() + offset, n);
    *result = Slice(scratch, n);
    return IOStatus::OK();
  }

 private:
  const StateRef state_;
  const FileRef file_;
};

class WritableFile final : public rocksdb::FSWritableFile {
 public:
  WritableFile(StateRef state, FileRef file)
      : state_(std::move(state)), file_(std::move(file)) {}
  using FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Change(); !s.ok()) return s;
    file_->bytes.append(data.data(), data.size());
    return IOStatus::OK();
  }
  IOStatus Truncate(uint64_t size, const IOOptions&, IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Check(); !s.ok()) return s;
    file_->bytes.resize(size);
    file_->synced = std::min<size_t>(file_->synced, size);
    return IOStatus::OK();
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Change(); !s.ok()) return s;
    if (state_->syncs_fail) return IOStatus::IOError("a sync failed");
    file_->synced = file_->bytes.size();
    return IOStatus::OK();
  }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    return file_->bytes.size();
  }

 private:
  const StateRef state_;
  const FileRef file_;
};

class Directory final : public rocksdb::FSDirectory {
 public:
  Directory(StateRef state, std::string path)
      : state_(std::move(state)), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    std::lock_guard<std::mutex> lock(state_->mu);
    if (IOStatus s = state_->Change(); !s.ok()) return s;
    std::vector<NameChange> rest;
    for (NameChange& change : state_->changes) {
      if (change.In(path_)) {
        change.Apply(state_->durable_names);
      } else {
        rest.push_back(std::move(change));
      }
    }
    state_->changes = std::move(rest);
    return IOStatus::OK();
  }

 private:
  const StateRef state_;
  const std::string path_;
};

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
