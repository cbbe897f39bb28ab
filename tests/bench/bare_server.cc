// kvtier_bare_server SOCKET: serves Bare there, says "ready" and goes with its parent.
// gRPC as the daemon uses it (callback API, no limit on messages), and nothing else.

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "bare.grpc.pb.h"

namespace kvtier::bench {
namespace {

// One call's messages, each made once: making one is not what is measured.
class Blobs {
 public:
  const Blob* Of(uint64_t size) {
    Blob& blob = blobs_[size];
    if (blob.bytes().size() != size) blob.set_bytes(std::string(size, 'x'));
    return &blob;
  }

 private:
  std::map<uint64_t, Blob> blobs_;
};

class SinkCall final : public grpc::ServerReadReactor<Blob> {
 public:
  explicit SinkCall(SinkDone* done) : done_(done) { StartRead(&blob_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    done_->set_bytes(done_->bytes() + blob_.bytes().size());
    StartRead(&blob_);
  }
  void OnDone() override { delete this; }

 private:
  SinkDone* const done_;
  Blob blob_;
};

class SourceCall final : public grpc::ServerWriteReactor<Blob> {
 public:
  explicit SourceCall(const Sizes* sizes)
      : sizes_(sizes->message_bytes().begin(), sizes->message_bytes().end()) {
    Next();
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    Next();
  }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (next_ == sizes_.size()) return Finish(grpc::Status::OK);
    StartWrite(blobs_.Of(sizes_[next_++]));
  }

  const std::vector<uint64_t> sizes_;
  size_t next_ = 0;
  Blobs blobs_;
};

class TripCall final : public grpc::ServerBidiReactor<Ask, Blob> {
 public:
  TripCall() { StartRead(&ask_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    next_ = 0;
    Next();
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    Next();
  }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (next_ == ask_.answer_bytes_size()) return StartRead(&ask_);
    StartWrite(blobs_.Of(ask_.answer_bytes(next_++)));
  }

  Ask ask_;
  int next_ = 0;
  Blobs blobs_;
};

class BareService final : public Bare::CallbackService {
 public:
  grpc::ServerReadReactor<Blob>* Sink(grpc::CallbackServerContext*,
                                      SinkDone* done) override {
    return new SinkCall(done);
  }
  grpc::ServerWriteReactor<Blob>* Source(grpc::CallbackServerContext*,
                                         const Sizes* sizes) override {
    return new SourceCall(sizes);
  }
  grpc::ServerBidiReactor<Ask, Blob>* Trip(grpc::CallbackServerContext*) override {
    return new TripCall;
  }
};

int Serve(const std::string& socket) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  BareService service;
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(-1);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  puts("ready");
  fflush(stdout);
  server->Wait();
  return 0;
}

}  // namespace
}  // namespace kvtier::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: kvtier_bare_server SOCKET\n");
    return 2;
  }
  return kvtier::bench::Serve(argv[1]);
}
