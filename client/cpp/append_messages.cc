#include "client/cpp/append_messages.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvtier::client {
namespace {

// Of an entry's fields other than its rows, and of the message around it, generously.
constexpr uint64_t kEntryOverheadBytes = 128;
// A token id takes at most five bytes on the wire.
constexpr uint64_t kTokenIdBytes = 5;

uint64_t RowOffset(const RowSource& rows, uint32_t token_count, size_t row_bytes,
                   uint32_t head, uint32_t token) {
  if (rows.dense()) {
    return rows.offset_bytes + (uint64_t{head} * token_count + token) * row_bytes;
  }
  const uint64_t in_head = head * rows.head_stride_bytes;
  if (rows.block_tokens == 0) {
    return rows.offset_bytes + in_head + token * rows.token_stride_bytes;
  }
  return rows.block_offset_bytes[token / rows.block_tokens] + in_head +
         (token % rows.block_tokens) * rows.token_stride_bytes;
}

// Fills messages and sends each when the next entry would not fit.
class Batch {
 public:
  Batch(uint64_t session, uint64_t bytes_max,
        absl::FunctionRef<absl::Status(const v1::AppendRequest&)> send)
      : session_(session), bytes_max_(bytes_max), send_(send) {}

  uint64_t bytes_max() const { return bytes_max_; }

  absl::Status MakeRoom(uint64_t bytes) {
    if (bytes_ > 0 && bytes_ + bytes > bytes_max_) {
      if (absl::Status status = Send(); !status.ok()) return status;
    }
    bytes_ += bytes;
    return absl::OkStatus();
  }

  v1::AppendRequest& message() { return message_; }

  absl::Status Send() {
    if (bytes_ == 0) return absl::OkStatus();
    message_.set_session_id(session_);
    absl::Status status = send_(message_);
    message_.Clear();
    bytes_ = 0;
    return status;
  }

 private:
  const uint64_t session_;
  const uint64_t bytes_max_;
  const absl::FunctionRef<absl::Status(const v1::AppendRequest&)> send_;
  v1::AppendRequest message_;
  uint64_t bytes_ = 0;
};

v1::AppendEntry* AddEntry(const AppendRows& rows, uint32_t begin, uint32_t count,
                          Batch* batch) {
  v1::AppendEntry* entry = batch->message().add_entries();
  entry->set_sequence_id(rows.sequence.value());
  entry->set_layer(rows.layer.value());
  entry->set_start_token(rows.start.value() + begin);
  entry->set_token_count(count);
  entry->set_approximate(rows.approximate);
  return entry;
}

// The daemon judges the sizes.
absl::Status AddWhole(const AppendRows& rows, Batch* batch) {
  const uint64_t bytes =
      rows.key.buffer.size() + rows.value.buffer.size() + kEntryOverheadBytes;
  if (bytes > batch->bytes_max() || !rows.key.dense() || !rows.value.dense()) {
    return absl::FailedPreconditionError(
        "rows that are longer than a message or strided need the model's shape: call "
        "RegisterModel and OpenSequence on this client first");
  }
  if (absl::Status status = batch->MakeRoom(bytes); !status.ok()) return status;
  v1::InlineRows* inline_rows =
      AddEntry(rows, 0, rows.token_count, batch)->mutable_inline_();
  const auto text = [](absl::Span<const std::byte> bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  inline_rows->set_key(text(rows.key.buffer.subspan(rows.key.offset_bytes)));
  inline_rows->set_value(text(rows.value.buffer.subspan(rows.value.offset_bytes)));
  return absl::OkStatus();
}

absl::Status AddPieces(const AppendRows& rows, const RowShape& shape, Batch* batch) {
  const uint64_t token_bytes = shape.kv_heads * (shape.key_bytes + shape.value_bytes);
  if (token_bytes + kEntryOverheadBytes > batch->bytes_max()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "one token's rows take ", token_bytes,
        " bytes, more than a message may: raise the daemon's limits.message_max"));
  }
  const uint32_t piece_max = static_cast<uint32_t>(std::min<uint64_t>(
      rows.token_count, (batch->bytes_max() - kEntryOverheadBytes) / token_bytes));
  for (uint32_t begin = 0; begin < rows.token_count; begin += piece_max) {
    const uint32_t count = std::min(piece_max, rows.token_count - begin);
    absl::Status status = batch->MakeRoom(count * token_bytes + kEntryOverheadBytes);
    if (!status.ok()) return status;
    v1::InlineRows* inline_rows = AddEntry(rows, begin, count, batch)->mutable_inline_();
    status = GatherRows(rows.key, rows.token_count, shape.kv_heads, shape.key_bytes,
                        begin, count, inline_rows->mutable_key());
    if (!status.ok()) return status;
    status = GatherRows(rows.value, rows.token_count, shape.kv_heads, shape.value_bytes,
                        begin, count, inline_rows->mutable_value());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status AddTokens(const TokenRun& run, Batch* batch) {
  const size_t piece_max = batch->bytes_max() / kTokenIdBytes - kEntryOverheadBytes;
  for (size_t begin = 0; begin < run.token_ids.size(); begin += piece_max) {
    const auto ids = run.token_ids.subspan(begin, piece_max);
    absl::Status status =
        batch->MakeRoom(ids.size() * kTokenIdBytes + kEntryOverheadBytes);
    if (!status.ok()) return status;
    v1::TokenRun* message = batch->message().add_tokens();
    message->set_sequence_id(run.sequence.value());
    message->set_start_token(run.start.value() + begin);
    message->mutable_token_ids()->Add(ids.begin(), ids.end());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status GatherRows(const RowSource& rows, uint32_t token_count, uint32_t kv_heads,
                        size_t row_bytes, uint32_t begin, uint32_t count,
                        std::string* out) {
  if (rows.block_tokens > 0 &&
      rows.block_offset_bytes.size() * rows.block_tokens < token_count) {
    return absl::InvalidArgumentError("the block table is shorter than the tokens");
  }
  out->reserve(out->size() + kv_heads * count * row_bytes);
  const char* data = reinterpret_cast<const char*>(rows.buffer.data());
  for (uint32_t head = 0; head < kv_heads; ++head) {
    for (uint32_t token = begin; token < begin + count; ++token) {
      const uint64_t offset = RowOffset(rows, token_count, row_bytes, head, token);
      if (offset > rows.buffer.size() || rows.buffer.size() - offset < row_bytes) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the row of kv head ", head, ", token ", token, " is at byte ", offset,
            " of a buffer of ", rows.buffer.size(), ": check the shape and the strides"));
      }
      out->append(data + offset, row_bytes);
    }
  }
  return absl::OkStatus();
}

absl::Status SendAppend(uint64_t session, uint64_t message_bytes_max,
                        absl::Span<const TokenRun> tokens,
                        absl::Span<const AppendRows> rows,
                        absl::FunctionRef<const RowShape*(const AppendRows&)> shape_of,
                        absl::FunctionRef<absl::Status(const v1::AppendRequest&)> send) {
  Batch batch(session, message_bytes_max - kEntryOverheadBytes, send);
  for (const TokenRun& run : tokens) {
    if (absl::Status status = AddTokens(run, &batch); !status.ok()) return status;
  }
  for (const AppendRows& one : rows) {
    const RowShape* shape = shape_of(one);
    const uint64_t bytes = one.key.buffer.size() + one.value.buffer.size();
    const bool whole = one.key.dense() && one.value.dense() &&
                       one.key.offset_bytes <= one.key.buffer.size() &&
                       one.value.offset_bytes <= one.value.buffer.size() &&
                       bytes + kEntryOverheadBytes <= batch.bytes_max();
    absl::Status status = whole || shape == nullptr ? AddWhole(one, &batch)
                                                    : AddPieces(one, *shape, &batch);
    if (!status.ok()) return status;
  }
  return batch.Send();
}

}  // namespace kvtier::client
