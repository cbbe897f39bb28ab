// Where the keys, or the values, of one append entry lie: a buffer and strides,
// checked once against the buffer so that copying needs no more checks.
//
// The buffer and its block table are the caller's and must outlive the source.
//
// Thread safety: const.

#ifndef KVTIER_DAEMON_ROW_SOURCE_H_
#define KVTIER_DAEMON_ROW_SOURCE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "daemon/requests.h"

namespace kvtier::daemon {

class RowSource {
 public:
  struct Shape {
    uint32_t kv_heads = 0;
    uint32_t token_count = 0;
    size_t row_bytes = 0;
  };

  // [kv_head][token][row] over the whole buffer, whose size must be just that.
  // `what` ("key", "value") is for messages.
  static absl::StatusOr<RowSource> Packed(absl::Span<const std::byte> buffer,
                                          const Shape& shape, const char* what);
  // InvalidArgument: something lies outside of the buffer, rows overlap, or the block
  // table is too short, or missing.
  static absl::StatusOr<RowSource> Strided(const StridedRows& rows, const Shape& shape,
                                           const char* what);

  // The row's bytes, adjacent; unaligned.
  const std::byte* row(uint32_t kv_head, uint32_t token) const {
    if (rows_.block_tokens == 0) {
      return rows_.buffer.data() + rows_.offset_bytes +
             kv_head * rows_.head_stride_bytes + token * rows_.token_stride_bytes;
    }
    return rows_.buffer.data() + rows_.block_offset_bytes[token / rows_.block_tokens] +
           kv_head * rows_.head_stride_bytes +
           (token % rows_.block_tokens) * rows_.token_stride_bytes;
  }

 private:
  explicit RowSource(const StridedRows& rows) : rows_(rows) {}

  StridedRows rows_;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_ROW_SOURCE_H_
