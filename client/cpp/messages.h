// Inside the client library: its plain values to the messages of proto/kvtier/v1 and
// back.
//
// Thread safety: pure functions.

#ifndef KVTIER_CLIENT_CPP_MESSAGES_H_
#define KVTIER_CLIENT_CPP_MESSAGES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/types.h"
#include "kvtier/v1/worker.pb.h"

namespace kvtier::client {

void ToMessage(const retrieval::ModelSpec& model, v1::ModelSpec* message);
void ToMessage(const SequenceOptions& options, v1::OpenSequenceRequest* message);
void ToMessage(const RetrieveItem& item, v1::RetrieveItem* message);
void ToMessage(const ReadRange& range, v1::ReadRequest* message);

absl::StatusOr<retrieval::ModelDigest> DigestFrom(const std::string& bytes);
Limits FromMessage(const v1::Limits& message);
// Move the rows out of the message.
RetrievePart FromMessage(v1::RetrieveResult* message);
ReadPart FromMessage(v1::ReadResponse* message);
// The latest word on each sequence counts.
void Merge(const v1::AppendResponse& message, std::vector<SequenceProgress>* progress);

}  // namespace kvtier::client

#endif  // KVTIER_CLIENT_CPP_MESSAGES_H_
