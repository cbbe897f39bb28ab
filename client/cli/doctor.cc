#include "client/cli/doctor.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/cli/json.h"
#include "client/cli/table.h"
#include "kernels/base/unique_fd.h"

namespace kvtier::cli {
namespace {

// The host tier's default unit: pinning less than that is no use to a GPU tier.
constexpr uint64_t kLockedBytesMin = uint64_t{8} << 20;
// Below that a disk tier soon stops writing.
constexpr uint64_t kFreeBytesMin = uint64_t{1} << 30;

std::string Error() { return std::strerror(errno); }

Finding IoUring() {
  io_uring_params params = {};
  const long fd = syscall(SYS_io_uring_setup, 1, &params);
  if (fd >= 0) {
    close(static_cast<int>(fd));
    return {"io_uring", Health::kOk, "allowed"};
  }
  return {"io_uring", Health::kWarning,
          absl::StrCat("refused (", Error(),
                       "): threads do its work, slower; allow it (container profile, "
                       "kernel.io_uring_disabled)")};
}

Finding MemoryLock() {
  rlimit limit = {};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  if (limit.rlim_cur == RLIM_INFINITY) return {"memlock", Health::kOk, "unlimited"};
  const std::string text = HumanBytes(limit.rlim_cur);
  if (limit.rlim_cur >= kLockedBytesMin) return {"memlock", Health::kOk, text};
  return {"memlock", Health::kWarning,
          text + ": raise it (LimitMEMLOCK=infinity, or ulimit -l)"};
}

Finding Descriptors() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::string text = absl::StrCat(limit.rlim_max);
  if (limit.rlim_max >= 4096) return {"open files", Health::kOk, text};
  return {"open files", Health::kWarning,
          text + ": each region and connection takes one; raise it (LimitNOFILE=)"};
}

Finding HugePages() {
  std::string line;
  std::getline(std::ifstream("/sys/kernel/mm/transparent_hugepage/shmem_enabled"), line);
  const bool there = line.find("[never]") == std::string::npos &&
                     line.find("[deny]") == std::string::npos && !line.empty();
  if (there) return {"huge pages", Health::kOk, "shared memory may have them: " + line};
  return {"huge pages", Health::kWarning,
          "shared memory has none: echo advise > "
          "/sys/kernel/mm/transparent_hugepage/shmem_enabled"};
}

Finding Cuda() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    return {"CUDA", Health::kWarning, "no driver: host memory and disk only"};
  }
  dlclose(library);
  return {"CUDA", Health::kOk, "a driver is there"};
}

// The directory itself, or the one in which the daemon will make it.
std::string Existing(const std::string& directory) {
  if (access(directory.c_str(), F_OK) == 0) return directory;
  const size_t end = directory.find_last_not_of('/');
  const size_t slash = directory.find_last_of('/', end);
  if (slash == std::string::npos) return ".";
  return directory.substr(0, std::max<size_t>(slash, 1));
}

Finding Writable(const std::string& what, const std::string& directory) {
  const std::string there = Existing(directory);
  struct stat info = {};
  if (stat(there.c_str(), &info) != 0) {
    return {what, Health::kFailure,
            absl::StrCat(there, ": ", Error(), "; mkdir -p ", there)};
  }
  if (!S_ISDIR(info.st_mode)) {
    return {what, Health::kFailure, there + " is no directory: choose another"};
  }
  if (access(there.c_str(), W_OK | X_OK) != 0) {
    return {what, Health::kFailure,
            absl::StrCat(there, ": ", Error(), "; give it to the daemon's user (you are ",
                         geteuid(), ")")};
  }
  return {what, Health::kOk, directory + (there == directory ? "" : ", will be made")};
}

Finding Sockets(const std::string& directory) {
  Finding finding = Writable("sockets", directory);
  struct stat info = {};
  if (finding.health != Health::kOk || stat(directory.c_str(), &info) != 0) {
    return finding;
  }
  if ((info.st_mode & S_IWOTH) != 0 && (info.st_mode & S_ISVTX) == 0) {
    return {"sockets", Health::kWarning,
            directory +
                " can be written by all: anybody may put another socket in the "
                "daemon's place; chmod o-w"};
  }
  return finding;
}

// Writes and reads a block past the page cache. 0, or the error number.
int TryDirect(const std::string& path) {
  constexpr size_t kBlock = 4096;
  alignas(kBlock) static char block[kBlock] = {};
  const UniqueFd fd(
      open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_DIRECT | O_CLOEXEC, 0600));
  if (fd.get() < 0) return errno;
  if (pwrite(fd.get(), block, kBlock, 0) != static_cast<ssize_t>(kBlock)) return errno;
  if (pread(fd.get(), block, kBlock, 0) != static_cast<ssize_t>(kBlock)) return errno;
  return 0;
}

void Disk(const std::string& directory, std::vector<Finding>* findings) {
  findings->push_back(Writable("disk directory", directory));
  if (findings->back().health == Health::kFailure) return;
  const std::string there = Existing(directory);
  struct stat info = {};
  if (there == directory && stat(there.c_str(), &info) == 0 &&
      (info.st_mode & 077) != 0) {
    findings->push_back({"privacy", Health::kWarning,
                         directory + " is open to others until the daemon starts: what "
                                     "it holds are prompts; chmod 700"});
  }
  struct statvfs space = {};
  if (statvfs(there.c_str(), &space) == 0) {
    const uint64_t free_bytes = uint64_t{space.f_bavail} * space.f_frsize;
    const bool enough = free_bytes >= kFreeBytesMin;
    findings->push_back({"free space", enough ? Health::kOk : Health::kFailure,
                         HumanBytes(free_bytes) +
                             (enough ? "" : ": free some, or choose another directory")});
  }
  const std::string probe = absl::StrCat(there, "/.kvtier-doctor-", getpid());
  const int error = TryDirect(probe);
  unlink(probe.c_str());
  if (error == 0) {
    findings->push_back({"O_DIRECT", Health::kOk, "a block was written and read"});
  } else {
    findings->push_back({"O_DIRECT", Health::kWarning,
                         absl::StrCat("refused (", std::strerror(error),
                                      "): the page cache takes memory too; use ext4 or "
                                      "XFS")});
  }
}

const char* NameOf(Health health) {
  constexpr const char* kNames[] = {"ok", "warning", "failure"};
  return kNames[static_cast<int>(health)];
}

}  // namespace

std::vector<Finding> Examine(const DoctorOptions& options) {
  std::vector<Finding> findings = {IoUring(),     MemoryLock(),
                                   Descriptors(), HugePages(),
                                   Cuda(),        Sockets(options.runtime_dir)};
  if (options.disk_directory.empty()) {
    findings.push_back({"disk directory", Health::kWarning,
                        "none given: without a disk tier a restart forgets everything; "
                        "--disk DIRECTORY"});
  } else {
    Disk(options.disk_directory, &findings);
  }
  return findings;
}

std::string FindingsTable(const std::vector<Finding>& findings) {
  Table table({"what", "", "says"});
  for (const Finding& one : findings) {
    table.Add({one.what, NameOf(one.health), one.says});
  }
  return table.Text();
}

std::string FindingsJson(const std::vector<Finding>& findings) {
  JsonWriter json;
  json.BeginObject();
  json.BeginArray("findings");
  for (const Finding& one : findings) {
    json.BeginObject();
    json.Field("what", one.what);
    json.Field("health", NameOf(one.health));
    json.Field("says", one.says);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  return json.text() + "\n";
}

}  // namespace kvtier::cli
