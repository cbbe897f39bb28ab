// How a selection shares its work: whoever owns threads says.

#ifndef KVTIER_RETRIEVAL_PARALLEL_H_
#define KVTIER_RETRIEVAL_PARALLEL_H_

#include <cstddef>

#include "absl/functional/function_ref.h"

namespace kvtier::retrieval {

// Thread safety: internally synchronized.
class Parallel {
 public:
  virtual ~Parallel() = default;

  // Runs work(0) .. work(count - 1), each once and in any order, on the calling thread
  // and perhaps on others. Returns when all are done.
  virtual void For(size_t count, absl::FunctionRef<void(size_t)> work) const = 0;
};

// The calling thread alone.
class Serial final : public Parallel {
 public:
  void For(size_t count, absl::FunctionRef<void(size_t)> work) const override {
    for (size_t i = 0; i < count; ++i) work(i);
  }
};

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_PARALLEL_H_
