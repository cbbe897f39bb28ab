// Where the sockets are: their directory, when nobody says (/run/kvtier for a system's
// daemon, the user's own runtime directory otherwise), and their names in it.

#ifndef KVTIER_DAEMON_RUNTIME_DIR_H_
#define KVTIER_DAEMON_RUNTIME_DIR_H_

#include <string>

namespace kvtier::daemon {

// /run/kvtier if this process may write there or make it; else <user_dir>/kvtier.
//   user_dir: what $XDG_RUNTIME_DIR says, or empty
std::string DefaultRuntimeDir(const std::string& user_dir);

std::string WorkerSocket(const std::string& runtime_dir, const std::string& space);
std::string AdminSocket(const std::string& runtime_dir);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_RUNTIME_DIR_H_
