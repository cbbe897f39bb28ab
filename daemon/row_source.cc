#include "daemon/row_source.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvtier::daemon {
namespace {

// Past the last byte of `tokens` rows per head from `offset`; false if that is beyond
// 64 bits.
bool EndOf(uint64_t offset, const StridedRows& rows, const RowSource::Shape& shape,
           uint64_t tokens, uint64_t* end) {
  uint64_t heads_span;
  uint64_t tokens_span;
  return !__builtin_mul_overflow(shape.kv_heads - 1, rows.head_stride_bytes,
                                 &heads_span) &&
         !__builtin_mul_overflow(tokens - 1, rows.token_stride_bytes, &tokens_span) &&
         !__builtin_add_overflow(offset, heads_span, end) &&
         !__builtin_add_overflow(*end, tokens_span, end) &&
         !__builtin_add_overflow(*end, shape.row_bytes, end);
}

// Overlapping rows would let a small message ask for any amount of memory.
absl::Status CheckStrides(const char* what, const StridedRows& rows,
                          const RowSource::Shape& shape) {
  const auto overlaps = [&](uint64_t stride, uint64_t count) {
    return count > 1 && stride < shape.row_bytes;
  };
  if (!overlaps(rows.token_stride_bytes, shape.token_count) &&
      !overlaps(rows.head_stride_bytes, shape.kv_heads)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the ", what, " layout's rows overlap: rows have ", shape.row_bytes,
      " bytes, strides are ", rows.head_stride_bytes, " from head to head and ",
      rows.token_stride_bytes, " from token to token"));
}

absl::Status Outside(const char* what, const StridedRows& rows) {
  return absl::InvalidArgumentError(
      absl::StrCat("the ", what, " layout reaches outside of its buffer of ",
                   rows.buffer.size(), " bytes: check offsets and strides"));
}

}  // namespace

absl::StatusOr<RowSource> RowSource::Packed(absl::Span<const std::byte> buffer,
                                            const Shape& shape, const char* what) {
  const uint64_t head_bytes = uint64_t{shape.token_count} * shape.row_bytes;
  const uint64_t expected = shape.kv_heads * head_bytes;  // < 2^10 * 2^32 * 2^12
  if (buffer.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " has ", buffer.size(), " bytes, but ", shape.kv_heads, " kv heads x ",
        shape.token_count, " tokens x ", shape.row_bytes, " bytes are ", expected));
  }
  StridedRows rows;
  rows.buffer = buffer;
  rows.head_stride_bytes = head_bytes;
  rows.token_stride_bytes = shape.row_bytes;
  return RowSource(rows);
}

absl::StatusOr<RowSource> RowSource::Strided(const StridedRows& rows, const Shape& shape,
                                             const char* what) {
  if (absl::Status s = CheckStrides(what, rows, shape); !s.ok()) return s;
  uint64_t end;
  if (rows.block_tokens == 0) {
    if (!rows.block_offset_bytes.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the ", what, " layout has block offsets but block_tokens is 0"));
    }
    if (!EndOf(rows.offset_bytes, rows, shape, shape.token_count, &end) ||
        end > rows.buffer.size()) {
      return Outside(what, rows);
    }
    return RowSource(rows);
  }
  const uint64_t blocks =
      (uint64_t{shape.token_count} + rows.block_tokens - 1) / rows.block_tokens;
  if (rows.block_offset_bytes.size() < blocks) {
    return absl::InvalidArgumentError(absl::StrCat("the ", what, " layout needs ", blocks,
                                                   " block offsets, but has ",
                                                   rows.block_offset_bytes.size()));
  }
  for (uint64_t block = 0; block < blocks; ++block) {
    const uint64_t tokens = std::min<uint64_t>(
        rows.block_tokens, shape.token_count - block * rows.block_tokens);
    if (!EndOf(rows.block_offset_bytes[block], rows, shape, tokens, &end) ||
        end > rows.buffer.size()) {
      return Outside(what, rows);
    }
  }
  return RowSource(rows);
}

}  // namespace kvtier::daemon
