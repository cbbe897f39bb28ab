#include "daemon/stats_messages.h"

#include <unistd.h>

#include <fstream>

#include "absl/time/clock.h"
#include "daemon/version.h"

namespace kvtier::daemon {
namespace {

uint64_t ResidentBytes() {
  uint64_t total_pages = 0, resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

}  // namespace

void FillStats(const Store& store, absl::Time started, v1::StatsResponse* message) {
  message->set_daemon_version(kVersion);
  message->set_uptime_seconds(absl::ToInt64Seconds(absl::Now() - started));
  message->set_resident_bytes(ResidentBytes());
  message->set_draining(store.limits().draining);
  for (const TierStats& stats : store.Tiers()) {
    v1::TierStats* tier = message->add_tiers();
    tier->set_tier(stats.tier);
    tier->set_capacity_bytes(stats.capacity_bytes);
    tier->set_used_bytes(stats.used_bytes);
    tier->set_pages(stats.pages);
    tier->set_chunks(stats.chunks);
    tier->set_hit_chunks(stats.hit_chunks);
    tier->set_miss_chunks(stats.miss_chunks);
    tier->set_evicted_chunks(stats.evicted_chunks);
    for (const TierStats::Eviction& eviction : stats.evictions) {
      v1::EvictionCount* count = tier->add_evictions();
      count->set_reason(eviction.reason);
      count->set_chunks(eviction.chunks);
    }
    tier->set_written_bytes(stats.written_bytes);
    tier->set_read_bytes(stats.read_bytes);
    tier->set_dropped_pages(stats.dropped_pages);
    tier->set_lost_chunks(stats.lost_chunks);
    tier->set_hole_chunks(stats.hole_chunks);
    tier->set_unwritten_chunks(stats.unwritten_chunks);
    tier->set_writing_chunks(stats.writing_chunks);
    for (const std::string& one : stats.complaints) tier->add_complaints(one);
  }
  for (const Namespace* space : store.Namespaces()) {
    const NamespaceStats stats = space->Stats();
    v1::NamespaceStats* one = message->add_namespaces();
    one->set_name(stats.name);
    one->set_models(stats.models);
    one->set_sessions(stats.sessions);
    one->set_sequences(stats.sequences);
    one->set_chunks(stats.chunks);
    one->set_unsealed_bytes(stats.unsealed_bytes);
    one->set_appended_tokens(stats.appended_tokens);
    one->set_retrieve_items(stats.retrieve_items);
    one->set_pinned_chunks(stats.pinned_chunks);
    one->set_pinned_bytes(stats.pinned_bytes);
    one->set_disk_bytes(stats.disk_bytes);
  }
}

void FillSession(const std::string& space, const SessionInfo& info,
                 v1::SessionInfo* message) {
  message->set_namespace_name(space);
  message->set_session_id(info.session.value());
  message->set_worker_label(info.worker_label);
  message->set_worker_pid(info.worker_pid);
  message->set_age_seconds(info.age_seconds);
  message->set_sequences(info.sequences);
  message->set_unsealed_bytes(info.unsealed_bytes);
}

void FillModels(const Namespace& space, v1::ListModelsResponse* message) {
  for (const ModelInfo& info : space.Models()) {
    v1::ModelInfo* one = message->add_models();
    one->set_namespace_name(space.name());
    one->set_label(info.label);
    one->set_model_digest(info.digest.data(), info.digest.size());
    one->set_layers(info.layers);
    one->set_dtype(DTypeName(info.dtype));
    one->set_chunk_tokens(kChunkTokens);
    one->set_rows_bytes(info.rows_bytes);
    one->set_abstract_bytes(info.abstract_bytes);
    one->set_table_bytes(info.table_bytes);
    one->set_disk_bytes(info.disk_bytes);
  }
}

void FillSequences(const std::string& space, const Session& session,
                   v1::ListSequencesResponse* message) {
  for (const SequenceInfo& info : session.Sequences()) {
    v1::SequenceInfo* one = message->add_sequences();
    one->set_namespace_name(space);
    one->set_sequence_id(info.sequence.value());
    one->set_session_id(info.session.value());
    one->set_model_label(info.model_label);
    one->set_system(info.system);
    one->set_budget_tokens(info.budget_tokens);
    one->set_sealed_tokens(info.sealed_tokens);
    one->set_tail_tokens(info.tail_tokens);
    one->set_cached_tokens(info.cached_tokens);
  }
}

}  // namespace kvtier::daemon
