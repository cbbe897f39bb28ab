// Inside the client library: rows from the caller's buffers into Append messages, each
// below the daemon's limit. Rows go dense on the wire; an entry that is too long for one
// message is cut by tokens.
//
// Thread safety: pure functions.

#ifndef KVTIER_CLIENT_CPP_APPEND_MESSAGES_H_
#define KVTIER_CLIENT_CPP_APPEND_MESSAGES_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/cpp/types.h"
#include "kvtier/v1/worker.pb.h"

namespace kvtier::client {

// Shape of one layer's rows: what it takes to gather or cut them.
struct RowShape {
  uint32_t kv_heads = 0;
  size_t key_bytes = 0;    // of one token and head
  size_t value_bytes = 0;  // of one token and head
};

// Tokens [begin, begin + count) of `rows`, dense, appended to `out`.
// InvalidArgument: a row lies outside of the buffer.
absl::Status GatherRows(const RowSource& rows, uint32_t token_count, uint32_t kv_heads,
                        size_t row_bytes, uint32_t begin, uint32_t count,
                        std::string* out);

// Calls `send` with one message after another; its error ends it and is returned.
//   shape_of: null where the shape isn't known; then only dense rows that fit are sent
absl::Status SendAppend(uint64_t session, uint64_t message_bytes_max,
                        absl::Span<const TokenRun> tokens,
                        absl::Span<const AppendRows> rows,
                        absl::FunctionRef<const RowShape*(const AppendRows&)> shape_of,
                        absl::FunctionRef<absl::Status(const v1::AppendRequest&)> send);

}  // namespace kvtier::client

#endif  // KVTIER_CLIENT_CPP_APPEND_MESSAGES_H_
