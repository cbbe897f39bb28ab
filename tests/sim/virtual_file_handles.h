// The virtual disk's files as RocksDB's open files. For virtual_files.cc alone.
//
// Thread safety: State::mu.

#ifndef KVTIER_TESTS_SIM_VIRTUAL_FILE_HANDLES_H_
#define KVTIER_TESTS_SIM_VIRTUAL_FILE_HANDLES_H_

#include <rocksdb/file_system.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace kvtier::tiers::sim {

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

inline std::string DirectoryOf(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

inline std::string Clean(std::string path) {
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

}  // namespace kvtier::tiers::sim

#endif  // KVTIER_TESTS_SIM_VIRTUAL_FILE_HANDLES_H_
