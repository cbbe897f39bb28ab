// Inside RingIo: where a test stands between the kernel and what does segments' I/O, to
// make happen what no file does on demand. Production has none.
//
// Thread safety: Submit, and Result for a ring, are called on the ring's thread; Result
// for the threads that replace it on any of those.

#ifndef KVTIER_TIERS_DISK_IO_FAULTS_H_
#define KVTIER_TIERS_DISK_IO_FAULTS_H_

#include <climits>

#include "tiers/disk/block_io.h"

namespace kvtier::tiers {

class IoFaults {
 public:
  // A result that has not come yet: asked for again some time later. For the ring only;
  // a thread that shall hang is kept in Result.
  static constexpr int kLate = INT_MIN;

  virtual ~IoFaults() = default;

  // What to take for the kernel's answer to a request, or to what was left of it:
  //   result: its own: bytes, or a negative error number
  virtual int Result(const IoRequest& request, int result) = 0;
  // Before requests are given to the ring: 0, or the negative error number with which
  // the kernel takes none of them now.
  virtual int Submit() { return 0; }
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TIERS_DISK_IO_FAULTS_H_
