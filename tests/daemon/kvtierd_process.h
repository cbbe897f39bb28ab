// A real kvtierd for a test: its own directory, started and awaited, killed at the end.
//
// Waiting is for what happens (a line on its output, its exit), with a deadline; never
// for time to pass.

#ifndef KVTIER_TESTS_DAEMON_KVTIERD_PROCESS_H_
#define KVTIER_TESTS_DAEMON_KVTIERD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace kvtier::testing {

// A directory below /tmp that goes with its object.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;  // would be removed twice
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A child process whose standard output is read line by line.
class ChildProcess {
 public:
  // What becomes of its standard error: this process's, or kept for Log().
  enum class Errors { kInherited, kKept };

  // Aborts the test program if it can't be started.
  explicit ChildProcess(const std::vector<std::string>& arguments,
                        Errors errors = Errors::kInherited);
  ChildProcess(const ChildProcess&) = delete;  // one owner waits for it
  ChildProcess& operator=(const ChildProcess&) = delete;
  // SIGKILL, if it still runs.
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  void Signal(int signal_number) const;
  // The next line without its newline; empty at the end or after 20 s.
  std::string ReadLine();
  // All that it has written to its standard error so far; no more than a pipe holds
  // between two calls.
  const std::string& Log();
  // Exit code, or 128 + the signal that ended it; -1 if it still runs after `patience`.
  int Wait(absl::Duration patience = absl::Seconds(20));

 private:
  pid_t pid_ = -1;
  int output_ = -1;
  int errors_ = -1;
  bool waited_ = false;
  int exit_code_ = -1;
  std::string buffer_;
  std::string log_;
};

class KvtierdProcess {
 public:
  // toml: the configuration, less the runtime directory. Returns when the daemon is
  // ready, or has failed to be: ask ready().
  explicit KvtierdProcess(const std::string& toml = "");
  // Serves an existing directory.
  KvtierdProcess(const std::string& toml, const std::string& runtime_dir);
  // Started by another program, if `wrapper` isn't empty, that gets its path and
  // arguments; its log is kept.
  KvtierdProcess(const std::string& toml, std::vector<std::string> wrapper);

  // Another configuration, for SIGHUP.
  void Configure(const std::string& toml);

  bool ready() const { return ready_line_.find("ready") != std::string::npos; }
  const std::string& ready_line() const { return ready_line_; }
  const std::string& dir() const { return dir_; }
  std::string socket(const std::string& space = "default") const {
    return dir_ + "/" + space + ".sock";
  }
  std::string admin_socket() const { return dir_ + "/admin.sock"; }
  ChildProcess& process() { return *process_; }
  // A line of /proc/<pid>/status, in bytes: "VmRSS", "RssAnon".
  uint64_t MemoryBytes(const std::string& key) const;

 private:
  void Start(const std::string& toml, std::vector<std::string> command = {},
             ChildProcess::Errors errors = ChildProcess::Errors::kInherited);

  TempDir temp_;
  std::string dir_;
  std::string ready_line_;
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace kvtier::testing

#endif  // KVTIER_TESTS_DAEMON_KVTIERD_PROCESS_H_
