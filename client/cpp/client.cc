#include "client/cpp/client.h"

#include <unistd.h>

#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/cpp/append_messages.h"
#include "client/cpp/channel.h"
#include "client/cpp/messages.h"
#include "client/cpp/stream_call.h"
#include "kvtier/v1/worker.grpc.pb.h"

namespace kvtier::client {
namespace {

using SessionStream = BidiCall<v1::SessionRequest, v1::SessionResponse>;
using RetrieveStream = BidiCall<v1::RetrieveRequest, v1::RetrieveResponse>;
using ReadRowsStream =
    ReadStream<grpc::ClientReadReactor<v1::ReadResponse>, v1::ReadResponse>;

// How long a client that is destroyed waits for the daemon to close its session.
constexpr absl::Duration kGoodbyePatience = absl::Seconds(1);

class GrpcClient final : public Client {
 public:
  GrpcClient(const ClientOptions& options, Channel channel)
      : options_(options),
        channel_(std::move(channel)),
        stub_(v1::Worker::NewStub(channel_.grpc())) {}

  ~GrpcClient() override {
    absl::MutexLock lock(&retrieve_mu_);
    DropRetrieveStream();
    if (session_stream_ == nullptr) return;
    session_stream_->HalfClose();
    session_stream_->EndAfter(absl::Now() + kGoodbyePatience);
  }

  absl::Status OpenSession() {
    session_stream_ = std::make_unique<SessionStream>();
    stub_->async()->Session(session_stream_->context(), session_stream_.get());
    session_stream_->Begin();
    v1::SessionRequest request;
    request.set_worker_label(options_.worker_label);
    request.set_worker_pid(getpid());
    const absl::Time deadline = channel_.Deadline();
    v1::SessionResponse response;
    StreamOutcome outcome = session_stream_->Write(deadline, std::move(request));
    if (outcome != StreamOutcome::kTooLate) {
      outcome = session_stream_->Read(deadline, &response);
    }
    if (outcome == StreamOutcome::kTooLate) return channel_.TooLate();
    if (outcome == StreamOutcome::kEnded) {
      absl::Status status = channel_.ToStatus(session_stream_->End());
      return status.ok() ? absl::UnavailableError("the daemon ended the session")
                         : status;
    }
    session_ = SessionId(response.session_id());
    limits_ = FromMessage(response.limits());
    return absl::OkStatus();
  }

  SessionId session() const override { return session_; }
  const Limits& limits() const override { return limits_; }

  absl::StatusOr<retrieval::ModelDigest> RegisterModel(
      const retrieval::ModelSpec& model) override {
    v1::RegisterModelRequest request;
    ToMessage(model, request.mutable_model());
    v1::RegisterModelResponse response;
    absl::Status status = Call(&v1::Worker::Stub::RegisterModel, request, &response);
    if (!status.ok()) return status;
    absl::StatusOr<retrieval::ModelDigest> digest = DigestFrom(response.model_digest());
    if (!digest.ok()) return digest.status();
    auto shapes = std::make_shared<std::vector<RowShape>>();
    for (const retrieval::LayerSpec& layer : model.layers) {
      const size_t element = ElementBytes(model.dtype);
      shapes->push_back(
          {layer.kv_heads, layer.key_dim * element, layer.value_dim * element});
    }
    absl::MutexLock lock(&shapes_mu_);
    model_shapes_[*digest] = std::move(shapes);
    return digest;
  }

  absl::StatusOr<OpenedSequence> OpenSequence(const SequenceOptions& options) override {
    v1::OpenSequenceRequest request;
    ToMessage(options, &request);
    request.set_session_id(session_.value());
    v1::OpenSequenceResponse response;
    absl::Status status = Call(&v1::Worker::Stub::OpenSequence, request, &response);
    if (!status.ok()) return status;
    const SequenceId sequence(response.sequence_id());
    absl::MutexLock lock(&shapes_mu_);
    auto shapes = model_shapes_.find(options.model);
    if (shapes != model_shapes_.end()) sequence_shapes_[sequence] = shapes->second;
    return OpenedSequence{sequence, response.cached_tokens(), response.exact_tokens()};
  }

  absl::StatusOr<std::vector<SequenceProgress>> Append(
      absl::Span<const TokenRun> tokens, absl::Span<const AppendRows> rows) override {
    std::vector<SequenceProgress> progress;
    const auto send = [&](const v1::AppendRequest& request) {
      v1::AppendResponse response;
      absl::Status status = Call(&v1::Worker::Stub::Append, request, &response);
      if (status.ok()) Merge(response, &progress);
      return status;
    };
    absl::Status status = Gather(limits_.message_bytes_max, tokens, rows, send);
    if (!status.ok()) return status;
    return progress;
  }

  absl::Status Refill(SequenceId sequence, uint64_t chunk_index,
                      absl::Span<const AppendRows> rows) override {
    v1::RefillRequest request;
    request.set_session_id(session_.value());
    request.set_sequence_id(sequence.value());
    request.set_chunk_index(chunk_index);
    const auto take = [&](const v1::AppendRequest& all) {
      *request.mutable_entries() = all.entries();
      return absl::OkStatus();
    };
    // In one piece, whatever its length.
    absl::Status status = Gather(std::numeric_limits<uint32_t>::max(), {}, rows, take);
    if (!status.ok()) return status;
    if (const uint64_t bytes = request.ByteSizeLong();
        bytes > limits_.message_bytes_max) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "a chunk's rows take ", bytes, " bytes, more than a message may, ",
          limits_.message_bytes_max, ": raise the daemon's limits.message_max"));
    }
    v1::RefillResponse response;
    return Call(&v1::Worker::Stub::Refill, request, &response);
  }

  absl::StatusOr<SealedTokens> Seal(SequenceId sequence, bool durable) override {
    v1::SealRequest request;
    request.set_session_id(session_.value());
    request.set_sequence_id(sequence.value());
    request.set_durable(durable);
    v1::SealResponse response;
    absl::Status status = Call(&v1::Worker::Stub::Seal, request, &response);
    if (!status.ok()) return status;
    return SealedTokens{response.sealed_tokens(), response.tail_tokens()};
  }

  absl::Status Retrieve(StepIndex step, absl::Span<const RetrieveItem> items,
                        absl::FunctionRef<absl::Status(RetrievePart)> sink) override {
    if (items.empty()) return absl::OkStatus();
    if (absl::Status status = CheckSession(); !status.ok()) return status;
    v1::RetrieveRequest request;
    request.set_session_id(session_.value());
    request.set_step(step.value());
    for (const RetrieveItem& item : items) ToMessage(item, request.add_items());

    absl::MutexLock lock(&retrieve_mu_);
    absl::Status status = Exchange(std::move(request), items.size(), sink);
    // Answers that nobody took must not be taken for those of the next call.
    if (!status.ok()) DropRetrieveStream();
    return status;
  }

  absl::Status Read(const ReadRange& range,
                    absl::FunctionRef<absl::Status(ReadPart)> sink) override {
    if (absl::Status status = CheckSession(); !status.ok()) return status;
    v1::ReadRequest request;
    ToMessage(range, &request);
    request.set_session_id(session_.value());
    ReadRowsStream stream;
    stub_->async()->Read(stream.context(), &request, &stream);
    stream.Begin();
    v1::ReadResponse response;
    absl::Status taken;
    StreamOutcome outcome = StreamOutcome::kDone;
    while (taken.ok() && outcome == StreamOutcome::kDone) {
      outcome = stream.Read(channel_.Deadline(), &response);
      if (outcome == StreamOutcome::kDone) taken = sink(FromMessage(&response));
    }
    const grpc::Status end = stream.End();
    if (!taken.ok()) return taken;
    if (outcome == StreamOutcome::kTooLate) return channel_.TooLate();
    return channel_.ToStatus(end);
  }

  absl::StatusOr<SealedTokens> Truncate(SequenceId sequence,
                                        uint64_t token_count) override {
    v1::TruncateRequest request;
    request.set_session_id(session_.value());
    request.set_sequence_id(sequence.value());
    request.set_token_count(token_count);
    v1::TruncateResponse response;
    absl::Status status = Call(&v1::Worker::Stub::Truncate, request, &response);
    if (!status.ok()) return status;
    return SealedTokens{response.sealed_tokens(), response.tail_tokens()};
  }

  absl::StatusOr<SequenceId> Fork(SequenceId sequence) override {
    v1::ForkRequest request;
    request.set_session_id(session_.value());
    request.set_sequence_id(sequence.value());
    v1::ForkResponse response;
    absl::Status status = Call(&v1::Worker::Stub::Fork, request, &response);
    if (!status.ok()) return status;
    const SequenceId fork(response.sequence_id());
    Shapes shapes = ShapesOf(sequence);
    absl::MutexLock lock(&shapes_mu_);
    if (shapes != nullptr) sequence_shapes_[fork] = std::move(shapes);
    return fork;
  }

  absl::Status Close(SequenceId sequence) override {
    v1::CloseRequest request;
    request.set_session_id(session_.value());
    request.set_sequence_id(sequence.value());
    v1::CloseResponse response;
    absl::Status status = Call(&v1::Worker::Stub::Close, request, &response);
    absl::MutexLock lock(&shapes_mu_);
    if (status.ok()) sequence_shapes_.erase(sequence);
    return status;
  }

 private:
  using Shapes = std::shared_ptr<const std::vector<RowShape>>;

  absl::Status CheckSession() const {
    if (!session_stream_->ended()) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat("the session with kvtierd at ", channel_.socket(),
                     " has ended (the daemon stopped or died): connect again"));
  }

  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::Worker::Stub::*method)(grpc::ClientContext*,
                                                             const Request&, Response*),
                    const Request& request, Response* response) {
    if (absl::Status status = CheckSession(); !status.ok()) return status;
    grpc::ClientContext context;
    channel_.SetDeadline(&context);
    return channel_.ToStatus((stub_.get()->*method)(&context, request, response));
  }

  // SendAppend, with the shapes that are known.
  absl::Status Gather(uint64_t message_bytes_max, absl::Span<const TokenRun> tokens,
                      absl::Span<const AppendRows> rows,
                      absl::FunctionRef<absl::Status(const v1::AppendRequest&)> send) {
    Shapes shapes;  // keeps what shape_of returns alive
    const auto shape_of = [&](const AppendRows& one) -> const RowShape* {
      shapes = ShapesOf(one.sequence);
      const bool known = shapes != nullptr && one.layer.value() < shapes->size();
      return known ? &(*shapes)[one.layer.value()] : nullptr;
    };
    return SendAppend(session_.value(), message_bytes_max, tokens, rows, shape_of, send);
  }

  Shapes ShapesOf(SequenceId sequence) {
    absl::MutexLock lock(&shapes_mu_);
    auto it = sequence_shapes_.find(sequence);
    return it == sequence_shapes_.end() ? nullptr : it->second;
  }

  absl::Status Exchange(v1::RetrieveRequest request, size_t item_count,
                        absl::FunctionRef<absl::Status(RetrievePart)> sink)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(retrieve_mu_) {
    if (retrieve_stream_ == nullptr) {
      retrieve_stream_ = std::make_unique<RetrieveStream>();
      stub_->async()->Retrieve(retrieve_stream_->context(), retrieve_stream_.get());
      retrieve_stream_->Begin();
    }
    const absl::Time deadline = channel_.Deadline();
    StreamOutcome outcome = retrieve_stream_->Write(deadline, std::move(request));
    size_t items_done = 0;
    bool first = true;
    v1::RetrieveResponse response;
    while (outcome == StreamOutcome::kDone && items_done < item_count) {
      outcome = retrieve_stream_->Read(deadline, &response);
      if (outcome != StreamOutcome::kDone) break;
      for (v1::RetrieveResult& result : *response.mutable_results()) {
        RetrievePart part = FromMessage(&result);
        part.first = std::exchange(first, part.last);
        if (part.last) ++items_done;
        if (absl::Status status = sink(std::move(part)); !status.ok()) return status;
      }
    }
    if (outcome == StreamOutcome::kDone) return absl::OkStatus();
    if (outcome == StreamOutcome::kTooLate) return channel_.TooLate();
    // What it ended with is known once reads have ended; ending it here is no loss.
    absl::Status status =
        channel_.ToStatus(retrieve_stream_->EndAfter(absl::Now() + kGoodbyePatience));
    return status.ok() ? absl::UnavailableError("the daemon ended the stream") : status;
  }

  void DropRetrieveStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(retrieve_mu_) {
    if (retrieve_stream_ != nullptr) retrieve_stream_->End();
    retrieve_stream_ = nullptr;
  }

  // Constant after Connect.
  const ClientOptions options_;
  const Channel channel_;
  const std::unique_ptr<v1::Worker::Stub> stub_;
  std::unique_ptr<SessionStream> session_stream_;
  SessionId session_;
  Limits limits_;

  absl::Mutex retrieve_mu_;
  std::unique_ptr<RetrieveStream> retrieve_stream_ ABSL_GUARDED_BY(retrieve_mu_);

  absl::Mutex shapes_mu_;
  absl::flat_hash_map<retrieval::ModelDigest, Shapes> model_shapes_
      ABSL_GUARDED_BY(shapes_mu_);
  absl::flat_hash_map<SequenceId, Shapes> sequence_shapes_ ABSL_GUARDED_BY(shapes_mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const ClientOptions& options) {
  absl::StatusOr<Channel> channel = Channel::Open(options.socket, options.deadline);
  if (!channel.ok()) return channel.status();
  auto client = std::make_unique<GrpcClient>(options, *std::move(channel));
  if (absl::Status status = client->OpenSession(); !status.ok()) return status;
  return client;
}

}  // namespace kvtier::client
