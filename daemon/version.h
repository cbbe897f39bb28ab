// The daemon's version, as CMake's project() says it.

#ifndef KVTIER_DAEMON_VERSION_H_
#define KVTIER_DAEMON_VERSION_H_

namespace kvtier::daemon {

inline constexpr char kVersion[] = KVTIER_VERSION;

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_VERSION_H_
