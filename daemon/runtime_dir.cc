#include "daemon/runtime_dir.h"

#include <unistd.h>

namespace kvtier::daemon {

std::string DefaultRuntimeDir(const std::string& user_dir) {
  const std::string system_dir = "/run/kvtier";
  const bool there = access(system_dir.c_str(), F_OK) == 0;
  const char* must_write = there ? system_dir.c_str() : "/run";
  if (access(must_write, W_OK) == 0 || user_dir.empty()) return system_dir;
  return user_dir + "/kvtier";
}

}  // namespace kvtier::daemon
