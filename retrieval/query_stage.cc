#include "retrieval/query_stage.h"

namespace kvtier::retrieval {
namespace {

class LastTokenStage final : public QueryStage {
 public:
  uint32_t FirstAsking(const Query& query) const override {
    return query.query_count - 1;
  }
};

class WholeWindowStage final : public QueryStage {
 public:
  uint32_t FirstAsking(const Query&) const override { return 0; }
};

}  // namespace

std::unique_ptr<const QueryStage> LastToken() {
  return std::make_unique<LastTokenStage>();
}

std::unique_ptr<const QueryStage> WholeWindow() {
  return std::make_unique<WholeWindowStage>();
}

}  // namespace kvtier::retrieval
