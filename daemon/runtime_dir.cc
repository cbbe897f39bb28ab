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

std::string WorkerSocket(const std::string& runtime_dir, const std::string& space) {
  return runtime_dir + "/" + space + ".sock";
}

// No namespace may have this name.
std::string AdminSocket(const std::string& runtime_dir) {
  return WorkerSocket(runtime_dir, "admin");
}

}  // namespace kvtier::daemon
