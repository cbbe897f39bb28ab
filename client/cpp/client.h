// A worker's connection to kvtierd: the portable plane, gRPC over the namespace's Unix
// socket.
//
//   Client --owns--> session (ends with the client; the daemon then closes what it has
//                    open), a stream for Retrieve, opened when first used
//
// Every call has a deadline and none hangs: a daemon that is gone, or goes during the
// call, gives Unavailable; one that doesn't answer gives DeadlineExceeded. A session
// that has ended doesn't come back: connect again and open the sequences anew; sealed
// chunks are still cached if the daemon lived.
//
// Errors are the daemon's, with its messages; see worker.proto.
//
// Thread safety: all methods, from any thread. Calls run in parallel, except that
// Retrieve calls take turns.

#ifndef KVTIER_CLIENT_CPP_CLIENT_H_
#define KVTIER_CLIENT_CPP_CLIENT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cpp/types.h"

namespace kvtier::client {

struct ClientOptions {
  // The socket decides the namespace: <runtime_dir>/<namespace>.sock.
  std::string socket = "/run/kvtier/default.sock";
  // Shown in the operator's lists; at most 256 bytes.
  std::string worker_label = "";
  // Of each message's answer. An append of a gigabyte takes about a second.
  absl::Duration deadline = absl::Seconds(30);
};

class Client {
 public:
  // Connects and opens the session.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const ClientOptions& options);

  virtual ~Client() = default;

  virtual SessionId session() const = 0;
  virtual const Limits& limits() const = 0;

  virtual absl::StatusOr<retrieval::ModelDigest> RegisterModel(
      const retrieval::ModelSpec& model) = 0;

  virtual absl::StatusOr<OpenedSequence> OpenSequence(const SequenceOptions& options) = 0;

  // Rows are gathered, and sent in as many messages as the daemon's limit on one asks
  // for. Each message is applied whole or not at all, in order; an error leaves those
  // before it applied: Seal says how far the sequence came.
  // FailedPrecondition: rows longer than a message, of a model that wasn't registered
  // through this client (it must know the shape to split them).
  virtual absl::StatusOr<std::vector<SequenceProgress>> Append(
      absl::Span<const TokenRun> tokens, absl::Span<const AppendRows> rows) = 0;

  virtual absl::StatusOr<SealedTokens> Seal(SequenceId sequence, bool durable) = 0;

  // Calls `sink` with each part of each item, in order. An item's error is in its part;
  // what is returned is the call's own. A sink's error ends the call and is returned.
  virtual absl::Status Retrieve(StepIndex step, absl::Span<const RetrieveItem> items,
                                absl::FunctionRef<absl::Status(RetrievePart)> sink) = 0;

  // Calls `sink` with stored rows, layer by layer, tokens ascending.
  virtual absl::Status Read(const ReadRange& range,
                            absl::FunctionRef<absl::Status(ReadPart)> sink) = 0;

  // Writes a hole of a sequence again: rows of its tokens, one entry for each layer. All
  // go in one message. ResourceExhausted: they are longer than the daemon takes.
  virtual absl::Status Refill(SequenceId sequence, uint64_t chunk_index,
                              absl::Span<const AppendRows> rows) = 0;

  virtual absl::StatusOr<SealedTokens> Truncate(SequenceId sequence,
                                                uint64_t token_count) = 0;
  virtual absl::StatusOr<SequenceId> Fork(SequenceId sequence) = 0;
  virtual absl::Status Close(SequenceId sequence) = 0;
};

}  // namespace kvtier::client

#endif  // KVTIER_CLIENT_CPP_CLIENT_H_
