// Calls that the client library doesn't make: other services, wrong messages.

#ifndef KVTIER_TESTS_DAEMON_RAW_CALL_H_
#define KVTIER_TESTS_DAEMON_RAW_CALL_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace kvtier::testing {

std::shared_ptr<grpc::Channel> RawChannel(const std::string& socket);

// One serialised message to `method`, one back.
absl::StatusOr<std::string> RawUnary(const std::shared_ptr<grpc::Channel>& channel,
                                     const char* method, const std::string& request);
// The same on a bidirectional stream.
absl::StatusOr<std::string> RawExchange(const std::shared_ptr<grpc::Channel>& channel,
                                        const char* method, const std::string& request);

}  // namespace kvtier::testing

#endif  // KVTIER_TESTS_DAEMON_RAW_CALL_H_
