// The threads that help the callers' own with long selections. The caller works too, so
// it is never slower than alone, and takes all of the work where the helpers are busy.
//
// Thread safety: internally synchronized.

#ifndef KVTIER_DAEMON_HELPER_THREADS_H_
#define KVTIER_DAEMON_HELPER_THREADS_H_

#include <cstddef>
#include <memory>

#include "daemon/thread_pool.h"
#include "retrieval/parallel.h"

namespace kvtier::daemon {

class HelperThreads final : public retrieval::Parallel {
 public:
  // threads: 0 is fine, nobody helps then
  explicit HelperThreads(size_t threads);

  void For(size_t count, absl::FunctionRef<void(size_t)> work) const override;

 private:
  // Constant after construction.
  const size_t threads_;
  // Internally synchronized.
  const std::unique_ptr<ThreadPool> pool_;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_HELPER_THREADS_H_
