#include "tests/bench/bare.h"

#include <grpcpp/client_context.h>

#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bare.grpc.pb.h"
#include "client/cpp/channel.h"
#include "tests/bench/rounds.h"
#include "tests/daemon/kvtierd_process.h"

namespace kvtier::bench {
namespace {

constexpr absl::Duration kDeadline = absl::Minutes(2);

absl::Status Lost(const char* what) {
  return absl::UnavailableError(
      absl::StrCat("the bare gRPC server was lost while ", what));
}

uint64_t Sum(absl::Span<const uint64_t> values) {
  return std::accumulate(values.begin(), values.end(), uint64_t{0});
}

class GrpcBareWire final : public BareWire {
 public:
  GrpcBareWire()
      : socket_(dir_.path() + "/bare.sock"),
        server_({KVTIER_BARE_SERVER_PATH, socket_}) {}

  ~GrpcBareWire() override {
    if (trip_ == nullptr) return;
    trip_context_.TryCancel();
    trip_->Finish();
  }

  absl::Status Connect() {
    if (server_.ReadLine() != "ready") {
      return absl::UnavailableError("the bare gRPC server did not start");
    }
    absl::StatusOr<client::Channel> channel = client::Channel::Open(socket_, kDeadline);
    if (!channel.ok()) return channel.status();
    stub_ = Bare::NewStub(channel->grpc());
    return absl::OkStatus();
  }

  absl::StatusOr<double> Send(absl::Span<const uint64_t> message_bytes) override {
    for (const uint64_t bytes : message_bytes) BlobOf(bytes);
    grpc::ClientContext context;
    SinkDone done;
    const Stopwatch stopwatch;
    auto writer = stub_->Sink(&context, &done);
    for (const uint64_t bytes : message_bytes) {
      if (!writer->Write(BlobOf(bytes))) break;
    }
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    const double seconds = stopwatch.Seconds();
    if (!status.ok() || done.bytes() != Sum(message_bytes)) return Lost("sending");
    return seconds;
  }

  absl::StatusOr<double> Receive(absl::Span<const uint64_t> message_bytes) override {
    Sizes sizes;
    sizes.mutable_message_bytes()->Add(message_bytes.begin(), message_bytes.end());
    grpc::ClientContext context;
    const Stopwatch stopwatch;
    auto reader = stub_->Source(&context, sizes);
    uint64_t bytes = 0;
    while (reader->Read(&incoming_)) bytes += incoming_.bytes().size();
    const grpc::Status status = reader->Finish();
    const double seconds = stopwatch.Seconds();
    if (!status.ok() || bytes != Sum(message_bytes)) return Lost("receiving");
    return seconds;
  }

  absl::StatusOr<double> Trip(uint64_t message_bytes,
                              absl::Span<const uint64_t> answer_bytes) override {
    if (trip_ == nullptr) trip_ = stub_->Trip(&trip_context_);
    if (ask_.bytes().size() != message_bytes) {
      ask_.set_bytes(std::string(message_bytes, 'x'));
    }
    ask_.clear_answer_bytes();
    ask_.mutable_answer_bytes()->Add(answer_bytes.begin(), answer_bytes.end());
    const Stopwatch stopwatch;
    bool ok = trip_->Write(ask_);
    uint64_t bytes = 0;
    for (size_t i = 0; ok && i < answer_bytes.size(); ++i) {
      ok = trip_->Read(&incoming_);
      bytes += incoming_.bytes().size();
    }
    const double seconds = stopwatch.Seconds();
    if (!ok || bytes != Sum(answer_bytes)) return Lost("on a round trip");
    return seconds;
  }

 private:
  // Made once a size: making one is not what is measured.
  const Blob& BlobOf(uint64_t bytes) {
    Blob& blob = blobs_[bytes];
    if (blob.bytes().size() != bytes) blob.set_bytes(std::string(bytes, 'x'));
    return blob;
  }

  testing::TempDir dir_;
  const std::string socket_;
  testing::ChildProcess server_;
  std::unique_ptr<Bare::Stub> stub_;
  std::map<uint64_t, Blob> blobs_;
  Blob incoming_;
  Ask ask_;
  // The open stream of Trip; null before the first.
  grpc::ClientContext trip_context_;
  std::unique_ptr<grpc::ClientReaderWriter<Ask, Blob>> trip_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BareWire>> BareWire::Start() {
  auto wire = std::make_unique<GrpcBareWire>();
  if (absl::Status status = wire->Connect(); !status.ok()) return status;
  return wire;
}

}  // namespace kvtier::bench
