// What of this machine a kvtierd needs, and whether it is there: for an operator whose
// daemon doesn't start, or is slow. Needs no daemon.
//
// Thread safety: pure functions; they look at the machine and change nothing but a file
// that they make and remove again.

#ifndef KVTIER_CLIENT_CLI_DOCTOR_H_
#define KVTIER_CLIENT_CLI_DOCTOR_H_

#include <string>
#include <vector>

namespace kvtier::cli {

enum class Health { kOk, kWarning, kFailure };

struct Finding {
  std::string what;
  Health health = Health::kOk;
  std::string says;  // and, unless all is well, what to do
};

struct DoctorOptions {
  std::string runtime_dir;
  std::string disk_directory;  // empty: no disk tier
};

std::vector<Finding> Examine(const DoctorOptions& options);

std::string FindingsTable(const std::vector<Finding>& findings);
std::string FindingsJson(const std::vector<Finding>& findings);

}  // namespace kvtier::cli

#endif  // KVTIER_CLIENT_CLI_DOCTOR_H_
