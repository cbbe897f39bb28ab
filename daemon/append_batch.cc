#include "daemon/append_batch.h"

#include <algorithm>
#include <utility>

namespace kvtier::daemon {

AppendBatch::Part* AppendBatch::Find(SequenceId sequence) {
  auto found = std::find_if(parts_.begin(), parts_.end(), [&](const Part& part) {
    return part.sequence->id() == sequence;
  });
  return found == parts_.end() ? nullptr : &*found;
}

AppendBatch::Part* AppendBatch::Add(std::shared_ptr<Sequence> sequence) {
  parts_.push_back(Part{std::move(sequence), {}, {}});
  return &parts_.back();
}

// The analysis can't follow a set of locks that is known at run time only.
absl::StatusOr<std::vector<SequenceProgress>> AppendBatch::Run()
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  std::vector<Sequence*> locked;
  for (const Part& part : parts_) locked.push_back(part.sequence.get());
  std::sort(locked.begin(), locked.end(),
            [](const Sequence* a, const Sequence* b) { return a->id() < b->id(); });
  for (Sequence* sequence : locked) sequence->mutex().Lock();

  absl::Status status;
  std::vector<AppendPlan> plans;
  for (const Part& part : parts_) {
    absl::StatusOr<AppendPlan> plan = part.sequence->PlanAppend(part.runs, part.entries);
    if (!plan.ok()) {
      status = plan.status();
      break;
    }
    plans.push_back(*std::move(plan));
  }
  std::vector<SequenceProgress> progress;
  for (size_t i = 0; status.ok() && i < parts_.size(); ++i) {
    progress.push_back(parts_[i].sequence->ApplyAppend(std::move(plans[i])));
  }
  for (Sequence* sequence : locked) sequence->mutex().Unlock();
  if (!status.ok()) return status;
  return progress;
}

}  // namespace kvtier::daemon
