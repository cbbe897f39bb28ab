// A selection on its way to the worker, cut into parts of bounded size.
//
// Thread safety: belongs to one call.

#ifndef KVTIER_DAEMON_SELECTION_PARTS_H_
#define KVTIER_DAEMON_SELECTION_PARTS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "daemon/requests.h"
#include "retrieval/view.h"

namespace kvtier::daemon {

class SelectionParts {
 public:
  struct Shape {
    uint32_t kv_heads = 0;
    size_t row_bytes = 0;
    SelectionForm form = SelectionForm::kRows;
    uint64_t part_bytes_max = 0;
  };
  explicit SelectionParts(const Shape& shape) : shape_(shape) {}

  void SetUnchanged() { unchanged_ = true; }
  // [kv_head]; kept goes with the first part.
  void SetDelta(std::vector<std::vector<uint32_t>> kept,
                std::vector<std::vector<uint32_t>> added);
  // All tokens of a range, for all kv heads: a part then has the same tokens for each.
  void SetEverything(uint32_t begin, uint32_t end);
  void SetRest(std::vector<float> output, std::vector<float> lse);
  void SetCost(const RetrieveCost& cost) { cost_ = cost; }
  // Counts bytes that were read for the rows of `part`, which carries the cost if it is
  // the last.
  void AddDiskBytes(uint64_t bytes, RetrievePart* part) {
    cost_.disk_bytes += bytes;
    if (part->last) part->cost.disk_bytes += bytes;
  }

  // Rows still to come.
  uint64_t added_rows() const;

  // The next part, without its rows.
  RetrievePart Next();
  // Copies the rows of what `part` adds from `view`.
  void FillRows(const retrieval::LayerView& view, RetrievePart* part) const;
  // Calls `visit` with (kv_head, chunk) of every page that FillRows reads of `part`,
  // each once if its tokens are ascending.
  template <typename Visit>
  void VisitPages(const RetrievePart& part, Visit visit) const;
  bool done() const { return done_; }

 private:
  uint64_t TokensPerPart() const;
  static void AddTokens(uint32_t head, absl::Span<const uint32_t> tokens,
                        RetrievePart* part);
  void AddListed(RetrievePart* part);
  void AddRange(RetrievePart* part);

  const Shape shape_;
  bool unchanged_ = false;
  bool everything_ = false;
  bool done_ = false;
  std::vector<std::vector<uint32_t>> kept_;
  std::vector<std::vector<uint32_t>> added_;
  uint32_t next_head_ = 0;
  size_t next_of_head_ = 0;
  uint32_t range_begin_ = 0;
  uint32_t range_end_ = 0;
  std::vector<float> rest_output_;
  std::vector<float> rest_lse_;
  RetrieveCost cost_;
};

template <typename Visit>
void SelectionParts::VisitPages(const RetrievePart& part, Visit visit) const {
  if (shape_.form != SelectionForm::kRows) return;
  size_t next = 0;
  for (uint32_t head = 0; head < part.added_counts.size(); ++head) {
    uint32_t last_chunk = ~uint32_t{0};
    for (const size_t end = next + part.added_counts[head]; next < end; ++next) {
      const uint32_t chunk = part.added[next] / kChunkTokens;
      if (chunk != last_chunk) visit(head, chunk);
      last_chunk = chunk;
    }
  }
}

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_SELECTION_PARTS_H_
