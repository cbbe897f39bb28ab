// A directory for a bench's files, removed with the object.
//
// Thread safety: constant once made.

#ifndef KVTIER_TESTS_BENCH_OWN_DIRECTORY_H_
#define KVTIER_TESTS_BENCH_OWN_DIRECTORY_H_

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace kvtier::bench {

class OwnDirectory {
 public:
  // A new one below `directory`. Unavailable: it can't be made.
  static absl::StatusOr<std::unique_ptr<const OwnDirectory>> Make(
      const std::string& directory) {
    std::string path = absl::StrCat(directory, "/kvtier-bench-XXXXXX");
    if (mkdtemp(path.data()) == nullptr) {
      return absl::UnavailableError(absl::StrCat(path, ": ", std::strerror(errno)));
    }
    return std::unique_ptr<const OwnDirectory>(new OwnDirectory(std::move(path)));
  }
  OwnDirectory(const OwnDirectory&) = delete;  // would be removed twice
  OwnDirectory& operator=(const OwnDirectory&) = delete;
  ~OwnDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }

 private:
  explicit OwnDirectory(std::string path) : path_(std::move(path)) {}

  const std::string path_;
};

}  // namespace kvtier::bench

#endif  // KVTIER_TESTS_BENCH_OWN_DIRECTORY_H_
