// From the messages of proto/kvtier/v1 to the plain values that sessions take, and back.
// Checks what only the message can get wrong (a missing oneof, a digest's length, what
// this version doesn't serve); all other checks are the session's.
//
// The values refer to the message's bytes: keep the message.
//
// Thread safety: pure functions.

#ifndef KVTIER_DAEMON_CONVERT_H_
#define KVTIER_DAEMON_CONVERT_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/requests.h"
#include "kvtier/v1/worker.pb.h"
#include "retrieval/model_spec.h"

namespace kvtier::daemon {

absl::StatusOr<retrieval::ModelSpec> FromMessage(const v1::ModelSpec& message);

absl::StatusOr<OpenSequenceOptions> FromMessage(const v1::OpenSequenceRequest& message);

struct AppendArguments {
  std::vector<TokenRun> tokens;
  std::vector<AppendEntry> entries;
};
absl::StatusOr<AppendArguments> FromMessage(const v1::AppendRequest& message);
absl::StatusOr<std::vector<AppendEntry>> FromMessage(const v1::RefillRequest& message);

absl::StatusOr<RetrieveItem> FromMessage(const v1::RetrieveItem& message, StepIndex step);

ReadRange FromMessage(const v1::ReadRequest& message);

// Moves the part's rows.
void ToMessage(RetrievePart part, v1::RetrieveResult* message);
void ToMessage(const absl::Status& error, v1::ItemError* message);
void ToMessage(ReadPart part, v1::ReadResponse* message);

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_CONVERT_H_
