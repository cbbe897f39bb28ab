#include "tiers/disk/segment_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tiers/disk/ring_io.h"

namespace kvtier::tiers {
namespace {

constexpr char kPrefix[] = "segment-";
// Of a file that is being made. One that is left over by a crash is written again.
constexpr char kNewName[] = "new-segment";
constexpr size_t kZeroBytes = size_t{1} << 20;
// Of the file system's, left free: evicting needs room for the catalog's log.
constexpr uint64_t kSpareBytes = uint64_t{8} << 20;

using Memory = std::unique_ptr<void, decltype(&std::free)>;

Memory Zeros(size_t bytes) {
  Memory zeros(std::aligned_alloc(kIoUnit, bytes), &std::free);
  std::fill_n(static_cast<std::byte*>(zeros.get()), bytes, std::byte{0});
  return zeros;
}

std::string NameOf(SegmentNumber segment) {
  return absl::StrFormat("%s%06u", kPrefix, segment.value());
}

// Nothing: it isn't the name that a segment of any number has.
std::optional<SegmentNumber> NumberOf(const std::string& name) {
  uint32_t number;
  if (!absl::StartsWith(name, kPrefix) ||
      !absl::SimpleAtoi(name.substr(sizeof(kPrefix) - 1), &number) ||
      NameOf(SegmentNumber(number)) != name) {
    return std::nullopt;
  }
  return SegmentNumber(number);
}

// Writes zeros over all of it: writing into a range that was only allocated takes the
// inode's lock for each write.
absl::Status Zero(int fd, const std::string& path, uint64_t bytes,
                  const std::function<void()>& pause) {
  if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
    return IoErrorToStatus(error, absl::StrCat("allocating ", path));
  }
  const Memory zeros = Zeros(kZeroBytes);
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t written = pwrite(fd, zeros.get(), std::min(kZeroBytes, bytes - done),
                                   static_cast<off_t>(done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return IoErrorToStatus(errno, absl::StrCat("zeroing ", path));
    done += static_cast<uint64_t>(written);
    pause();
  }
  if (fsync(fd) != 0) return IoErrorToStatus(errno, absl::StrCat("syncing ", path));
  return absl::OkStatus();
}

// Before anything is taken: else a full file system would be filled to its last byte at
// each try, and others' writes fail meanwhile.
absl::Status CheckRoom(const std::string& directory, const std::string& path,
                       uint64_t bytes) {
  struct statvfs info = {};
  if (statvfs(directory.c_str(), &info) != 0) {
    return IoErrorToStatus(errno, absl::StrCat("looking at ", directory));
  }
  if (uint64_t{info.f_bavail} * info.f_frsize >= bytes + kSpareBytes) {
    return absl::OkStatus();
  }
  return IoErrorToStatus(ENOSPC, absl::StrCat("allocating ", path));
}

}  // namespace

absl::Status IoErrorToStatus(int error_number, const std::string& what) {
  const std::string text = absl::StrCat(what, ": ", std::strerror(error_number));
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(
          absl::StrCat(text, ": free some space, or lower [disk] capacity"));
    case EROFS:
      return absl::FailedPreconditionError(
          absl::StrCat(text, ": remount the file system for writing"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(text);
    case EEXIST:
      return absl::AlreadyExistsError(text);
    case EFBIG:
      return absl::UnavailableError(absl::StrCat(
          text, ": allow this process larger files (ulimit -f, LimitFSIZE=)"));
    case EIO:
      return absl::UnavailableError(
          absl::StrCat(text, ": look at the device, and at the kernel's log"));
    default:
      return absl::UnavailableError(text);
  }
}

std::string SegmentFiles::Path(SegmentNumber segment) const {
  return absl::StrCat(directory_, "/", NameOf(segment));
}

absl::Status SegmentFiles::Prepare() {
  if (mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) {
    return IoErrorToStatus(errno, absl::StrCat("making ", directory_));
  }
  // What it holds are prompts in the clear.
  if (chmod(directory_.c_str(), 0700) != 0) {
    return IoErrorToStatus(errno, absl::StrCat("closing ", directory_, " to others"));
  }
  return Probe();
}

absl::Status SegmentFiles::Probe() {
  const std::string path = absl::StrCat(directory_, "/probe");
  absl::StatusOr<UniqueFd> file = [&] {
    MutexLock lock(&mu_);
    return Open(path, O_CREAT | O_TRUNC);
  }();
  absl::Status status = file.status();
  if (status.ok()) {
    const Memory zeros = Zeros(kIoUnit);
    const bool written = pwrite(file->get(), zeros.get(), kIoUnit, 0) == kIoUnit;
    if (!written || fdatasync(file->get()) != 0) {
      status = IoErrorToStatus(errno, absl::StrCat("writing ", path));
    }
  }
  unlink(path.c_str());
  return status;
}

absl::StatusOr<UniqueFd> SegmentFiles::Open(const std::string& path, int flags) {
  flags |= O_RDWR | O_CLOEXEC;
  int fd = open(path.c_str(), flags | (direct_ ? O_DIRECT : 0), 0600);
  if (fd < 0 && errno == EINVAL && direct_) {
    direct_ = false;
    fd = open(path.c_str(), flags, 0600);
  }
  if (fd < 0) return IoErrorToStatus(errno, absl::StrCat("opening ", path));
  return UniqueFd(fd);
}

absl::Status SegmentFiles::SyncDirectory() const {
  const UniqueFd fd(open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || fsync(fd.get()) != 0) {
    return IoErrorToStatus(errno, absl::StrCat("syncing ", directory_));
  }
  return absl::OkStatus();
}

absl::Status SegmentFiles::Create(SegmentNumber segment, uint64_t bytes,
                                  const std::function<void()>& pause) {
  const std::string path = Path(segment);
  const std::string new_path = absl::StrCat(directory_, "/", kNewName);
  MutexLock one_at_a_time(&create_mu_);
  if (access(path.c_str(), F_OK) == 0) {
    return IoErrorToStatus(EEXIST, absl::StrCat("making ", path));
  }
  if (absl::Status s = CheckRoom(directory_, path, bytes); !s.ok()) return s;
  absl::StatusOr<UniqueFd> file = [&] {
    MutexLock lock(&mu_);
    return Open(new_path, O_CREAT | O_TRUNC);
  }();
  if (!file.ok()) return file.status();
  absl::Status status = Zero(file->get(), path, bytes, pause);
  // It counts as a segment once it is one.
  if (status.ok() && rename(new_path.c_str(), path.c_str()) != 0) {
    status = IoErrorToStatus(errno, absl::StrCat("making ", path));
  }
  if (!status.ok()) {
    unlink(new_path.c_str());
    return status;
  }
  if (status = SyncDirectory(); !status.ok()) {
    unlink(path.c_str());
    return status;
  }
  MutexLock lock(&mu_);
  files_.insert_or_assign(segment, *std::move(file));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BlockIo::Segment>> SegmentFiles::OpenAll() {
  std::vector<BlockIo::Segment> segments;
  std::error_code error;
  MutexLock lock(&mu_);
  files_.clear();
  foreign_.clear();
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    const std::string name = entry.path().filename();
    const std::optional<SegmentNumber> number = NumberOf(name);
    if (!number.has_value()) {
      if (absl::StartsWith(name, kPrefix)) foreign_.push_back(name);
      continue;
    }
    absl::StatusOr<UniqueFd> file = Open(entry.path(), 0);
    if (!file.ok()) return file.status();
    struct stat info = {};
    if (fstat(file->get(), &info) != 0) {
      return IoErrorToStatus(errno, absl::StrCat("looking at ", entry.path().string()));
    }
    segments.push_back({*number, static_cast<uint64_t>(info.st_size)});
    files_.insert_or_assign(*number, *std::move(file));
  }
  if (error) return IoErrorToStatus(error.value(), absl::StrCat("listing ", directory_));
  std::sort(segments.begin(), segments.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  return segments;
}

absl::Status SegmentFiles::Remove(SegmentNumber segment) {
  {
    MutexLock lock(&mu_);
    files_.erase(segment);
  }
  const std::string path = Path(segment);
  if (unlink(path.c_str()) != 0) {
    return IoErrorToStatus(errno, absl::StrCat("removing ", path));
  }
  return SyncDirectory();
}

absl::StatusOr<uint64_t> SegmentFiles::RemoveAll() {
  if (access(directory_.c_str(), F_OK) != 0 && errno == ENOENT) return 0;
  absl::StatusOr<std::vector<BlockIo::Segment>> segments = OpenAll();
  if (!segments.ok()) return segments.status();
  uint64_t bytes = 0;
  for (const BlockIo::Segment& segment : *segments) {
    if (absl::Status s = Remove(segment.number); !s.ok()) return s;
    bytes += segment.bytes;
  }
  const std::string new_path = absl::StrCat(directory_, "/", kNewName);
  if (unlink(new_path.c_str()) != 0 && errno != ENOENT) {
    return IoErrorToStatus(errno, absl::StrCat("removing ", new_path));
  }
  return bytes;
}

int SegmentFiles::fd(SegmentNumber segment) const {
  MutexLock lock(&mu_);
  auto found = files_.find(segment);
  return found == files_.end() ? -1 : found->second.get();
}

std::vector<std::string> SegmentFiles::Downgrades() const {
  MutexLock lock(&mu_);
  std::vector<std::string> downgrades;
  if (!direct_) {
    downgrades.push_back(
        absl::StrCat("O_DIRECT is refused in ", directory_,
                     ": the page cache takes memory too; use ext4 or XFS"));
  }
  for (const std::string& name : foreign_) {
    downgrades.push_back(absl::StrCat("not a segment, left alone: ", name));
  }
  return downgrades;
}

}  // namespace kvtier::tiers
