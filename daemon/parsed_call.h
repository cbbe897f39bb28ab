// Unary calls whose request this daemon parses itself, so that one which isn't protobuf,
// or has a name that isn't UTF-8, gets an error that says so: gRPC would answer
// Unimplemented, without a word. For methods marked raw in the service.
//
// A call's messages live until its reply. Thread safety: one owner at a time.

#ifndef KVTIER_DAEMON_PARSED_CALL_H_
#define KVTIER_DAEMON_PARSED_CALL_H_

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/to_grpc_status.h"

namespace kvtier::daemon {

template <typename Request, typename Response>
class ParsedCall {
 public:
  // Null, and the call has its answer, if the request can't be parsed.
  static std::shared_ptr<ParsedCall> Parse(grpc::ServerUnaryReactor* reactor,
                                           const grpc::ByteBuffer& bytes,
                                           grpc::ByteBuffer* reply) {
    auto call = std::make_shared<ParsedCall>(reactor, reply);
    grpc::ByteBuffer copy(bytes);  // parsing consumes it
    if (grpc::SerializationTraits<Request>::Deserialize(&copy, &call->request).ok()) {
      return call;
    }
    reactor->Finish(ToGrpcStatus(absl::InvalidArgumentError(
        absl::StrCat("the message isn't a ", Request::descriptor()->full_name(),
                     ", or a name in it isn't UTF-8"))));
    return nullptr;
  }

  ParsedCall(grpc::ServerUnaryReactor* reactor, grpc::ByteBuffer* reply)
      : reactor_(reactor), reply_(reply) {}

  // Once.
  void Finish(const absl::Status& status) {
    grpc::Status end = ToGrpcStatus(status);
    bool owned = false;
    if (end.ok()) {
      end = grpc::SerializationTraits<Response>::Serialize(response, reply_, &owned);
    }
    reactor_->Finish(end);
  }

  Request request;
  Response response;

 private:
  grpc::ServerUnaryReactor* const reactor_;
  grpc::ByteBuffer* const reply_;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_PARSED_CALL_H_
