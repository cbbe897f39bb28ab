// Stage 2: which of a step's queries ask?
//
// A step brings one query (decoding) or a window of them (prefill, speculation). Those
// that ask are scored, and their probabilities averaged, into one selection for all. The
// rest is estimated for each of the window's queries, whether it asked or not.
//
// Thread safety: const.

#ifndef KVTIER_RETRIEVAL_QUERY_STAGE_H_
#define KVTIER_RETRIEVAL_QUERY_STAGE_H_

#include <memory>

#include "retrieval/system.h"

namespace kvtier::retrieval {

class QueryStage {
 public:
  virtual ~QueryStage() = default;

  // Query index at which asking starts; all from there to the last one ask.
  virtual uint32_t FirstAsking(const Query& query) const = 0;
};

// The window's last query alone.
std::unique_ptr<const QueryStage> LastToken();
// All of the window.
std::unique_ptr<const QueryStage> WholeWindow();

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_QUERY_STAGE_H_
