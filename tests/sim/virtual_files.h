// The files of the virtual disk: a rocksdb::FileSystem in memory with the power-failure
// model of virtual_disk.h.
//
// Thread safety: internally synchronized (RocksDB has threads of its own).

#ifndef KVTIER_TESTS_SIM_VIRTUAL_FILES_H_
#define KVTIER_TESTS_SIM_VIRTUAL_FILES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "tests/sim/virtual_disk.h"

namespace rocksdb {
class Env;
}  // namespace rocksdb

namespace kvtier::tiers::sim {

// What is in the files after a restart. Directories exist as long as something is in
// them.
using FileImages = std::map<std::string, std::string>;

class VirtualFiles {
 public:
  static std::unique_ptr<VirtualFiles> Create(FileImages images);
  virtual ~VirtualFiles() = default;

  virtual rocksdb::Env* env() = 0;
  // Power goes after so many more operations that change something.
  virtual void PowerOffAfter(uint64_t operations) = 0;
  virtual bool is_off() const = 0;
  // From now on everything fails. Returns what survived.
  virtual FileImages PowerOff(Random& random) = 0;
  // Everything as it is, for a tier that was closed.
  virtual FileImages Images() const = 0;
  // Changes fail for lack of space while this is set.
  virtual void SetFull(bool full) = 0;
  // Syncs of files fail while this is set; what was appended may survive all the same.
  virtual void SetSyncsFail(bool fail) = 0;
};

}  // namespace kvtier::tiers::sim

#endif  // KVTIER_TESTS_SIM_VIRTUAL_FILES_H_
