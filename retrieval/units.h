// Stage 3: what is ranked?
//
// Units are runs of tokens of one length that divides a page, aligned to the page. A
// unit that the candidate range cuts stands for its tokens inside the range.
//
// Thread safety: const.

#ifndef KVTIER_RETRIEVAL_UNITS_H_
#define KVTIER_RETRIEVAL_UNITS_H_

#include <cstdint>
#include <memory>

#include "kernels/base/types.h"

namespace kvtier::retrieval {

class Units {
 public:
  virtual ~Units() = default;
  virtual uint32_t tokens() const = 0;
};

std::unique_ptr<const Units> Tokens();
std::unique_ptr<const Units> Spans();  // of 16

}  // namespace kvtier::retrieval

#endif  // KVTIER_RETRIEVAL_UNITS_H_
