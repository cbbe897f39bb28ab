#include "daemon/call_gate.h"

#include <utility>

namespace kvtier::daemon {

void CallGate::StartRead() {
  absl::MutexLock lock(&mu_);
  reading_ = true;
}

void CallGate::StartWrite() {
  absl::MutexLock lock(&mu_);
  writing_ = true;
}

void CallGate::ReadDone(bool ok) {
  absl::MutexLock lock(&mu_);
  reading_ = false;
  read_ok_ = ok;
}

void CallGate::WriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  if (!ok && end_.ok()) end_ = absl::CancelledError("the client is gone");
}

void CallGate::End(absl::Status why) {
  absl::MutexLock lock(&mu_);
  if (end_.ok()) end_ = std::move(why);
}

CallGate::Read CallGate::AwaitRead() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &CallGate::ReadIsDone));
  if (!end_.ok()) return Read::kEnded;
  return read_ok_ ? Read::kMessage : Read::kNoMore;
}

bool CallGate::AwaitWritable() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &CallGate::WriteIsDone));
  return end_.ok();
}

bool CallGate::AwaitLastWrite(absl::Duration patience) {
  absl::MutexLock lock(&mu_);
  return mu_.AwaitWithTimeout(absl::Condition(this, &CallGate::NothingIsWritten),
                              patience);
}

absl::Status CallGate::end() const {
  absl::MutexLock lock(&mu_);
  return end_;
}

}  // namespace kvtier::daemon
