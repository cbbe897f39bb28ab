#include "retrieval/units.h"

namespace kvtier::retrieval {
namespace {

template <uint32_t kTokens>
class FixedUnits final : public Units {
 public:
  static_assert(kChunkTokens % kTokens == 0);
  uint32_t tokens() const override { return kTokens; }
};

}  // namespace

std::unique_ptr<const Units> Tokens() { return std::make_unique<FixedUnits<1>>(); }
std::unique_ptr<const Units> Spans() {
  return std::make_unique<FixedUnits<kSpanTokens>>();
}

}  // namespace kvtier::retrieval
