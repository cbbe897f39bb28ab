// Runs a test body once for each instruction set that this machine and the kernels have.

#ifndef KVTIER_TESTS_KERNELS_INSTRUCTION_SETS_H_
#define KVTIER_TESTS_KERNELS_INSTRUCTION_SETS_H_

#include <cstdint>

#include "gtest/gtest.h"
#include "hwy/targets.h"

namespace kvtier::kernels {

// A kernel takes the best of the allowed ones: the lowest bit. `body` is told none: what
// fails says which it was.
template <class Body>
void ForEachInstructionSet(const Body& body) {
  const int64_t all = hwy::SupportedTargets();
  for (int64_t set = all & (HWY_AVX3_DL | HWY_AVX3 | HWY_AVX2 | HWY_SSE4 | HWY_SSSE3);
       set != 0; set &= set - 1) {
    const int64_t best = set & -set;
    const ::testing::ScopedTrace trace(__FILE__, __LINE__, hwy::TargetName(best));
    hwy::SetSupportedTargetsForTest(all & -best);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace kvtier::kernels

#endif  // KVTIER_TESTS_KERNELS_INSTRUCTION_SETS_H_
