#include "client/cli/render.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/json.h"
#include "client/cli/table.h"

namespace kvtier::cli {
namespace {

using absl::StrCat;

void WriteStats(const client::Stats& stats, JsonWriter* json) {
  json->Field("daemon_version", stats.daemon_version);
  json->Field("uptime_seconds", stats.uptime_seconds);
  json->Field("resident_bytes", stats.resident_bytes);
  json->Field("draining", uint64_t{stats.draining});
  json->BeginArray("tiers");
  for (const client::TierStats& tier : stats.tiers) {
    json->BeginObject();
    json->Field("tier", tier.tier);
    json->Field("capacity_bytes", tier.capacity_bytes);
    json->Field("used_bytes", tier.used_bytes);
    json->Field("pages", tier.pages);
    json->Field("chunks", tier.chunks);
    json->Field("hit_chunks", tier.hit_chunks);
    json->Field("miss_chunks", tier.miss_chunks);
    json->Field("evicted_chunks", tier.evicted_chunks);
    json->Field("written_bytes", tier.written_bytes);
    json->Field("read_bytes", tier.read_bytes);
    json->Field("dropped_pages", tier.dropped_pages);
    json->Field("lost_chunks", tier.lost_chunks);
    json->Field("unwritten_chunks", tier.unwritten_chunks);
    json->Field("hole_chunks", tier.hole_chunks);
    json->Field("writing_chunks", tier.writing_chunks);
    json->BeginObject("evictions");
    for (const client::TierStats::Eviction& one : tier.evictions) {
      json->Field(one.reason.c_str(), one.chunks);
    }
    json->EndObject();
    json->BeginArray("complaints");
    for (const std::string& one : tier.complaints) json->Item(one);
    json->EndArray();
    json->EndObject();
  }
  json->EndArray();
  json->BeginArray("namespaces");
  for (const client::NamespaceStats& space : stats.namespaces) {
    json->BeginObject();
    json->Field("name", space.name);
    json->Field("models", space.models);
    json->Field("sessions", space.sessions);
    json->Field("sequences", space.sequences);
    json->Field("chunks", space.chunks);
    json->Field("unsealed_bytes", space.unsealed_bytes);
    json->Field("appended_tokens", space.appended_tokens);
    json->Field("retrieve_items", space.retrieve_items);
    json->Field("pinned_chunks", space.pinned_chunks);
    json->Field("pinned_bytes", space.pinned_bytes);
    json->Field("disk_bytes", space.disk_bytes);
    json->EndObject();
  }
  json->EndArray();
}

void WriteSessions(const std::vector<client::SessionInfo>& sessions, JsonWriter* json) {
  json->BeginArray("sessions");
  for (const client::SessionInfo& info : sessions) {
    json->BeginObject();
    json->Field("namespace_name", info.namespace_name);
    json->Field("session_id", info.session_id);
    json->Field("worker_label", info.worker_label);
    json->Field("worker_pid", info.worker_pid);
    json->Field("age_seconds", info.age_seconds);
    json->Field("sequences", info.sequences);
    json->Field("unsealed_bytes", info.unsealed_bytes);
    json->EndObject();
  }
  json->EndArray();
}

struct Totals {
  uint64_t used_bytes = 0, chunks = 0, evicted_chunks = 0;
  uint64_t sessions = 0, sequences = 0, appended_tokens = 0, retrieve_items = 0;
};

Totals Sum(const client::Stats& stats) {
  Totals sum;
  for (const client::TierStats& tier : stats.tiers) {
    sum.used_bytes += tier.used_bytes;
    sum.chunks += tier.chunks;
    sum.evicted_chunks += tier.evicted_chunks;
  }
  for (const client::NamespaceStats& space : stats.namespaces) {
    sum.sessions += space.sessions;
    sum.sequences += space.sequences;
    sum.appended_tokens += space.appended_tokens;
    sum.retrieve_items += space.retrieve_items;
  }
  return sum;
}

struct ModelCost {
  uint64_t tokens = 0, host_bytes = 0, abstract_bytes = 0, disk_bytes = 0;
};

ModelCost CostOf(const client::ModelInfo& model, uint64_t tokens) {
  const uint64_t unit = std::max<uint32_t>(1, model.chunk_tokens);
  const uint64_t chunks = tokens == 0 ? 1 : (tokens + unit - 1) / unit;
  return {chunks * unit,
          chunks * (model.rows_bytes + model.abstract_bytes + model.table_bytes),
          chunks * model.abstract_bytes, chunks * model.disk_bytes};
}

constexpr char kWatchFormat[] = "%10s %10s %10s %10s %9s %10s %12s %12s\n";

}  // namespace

std::string StatusTables(const client::Stats& stats,
                         const std::vector<client::SessionInfo>& sessions) {
  std::string text = StrCat("kvtierd ", stats.daemon_version, ", up ",
                            HumanSeconds(stats.uptime_seconds), ", resident ",
                            HumanBytes(stats.resident_bytes),
                            stats.draining ? ", draining" : "", "\n\n");
  Table tiers({"tier", "capacity", "used", "pages", "chunks", "hits", "misses", "evicted",
               "dropped", "lost", "holes", "written", "read"});
  for (const client::TierStats& tier : stats.tiers) {
    tiers.Add({tier.tier, HumanBytes(tier.capacity_bytes), HumanBytes(tier.used_bytes),
               StrCat(tier.pages), StrCat(tier.chunks), StrCat(tier.hit_chunks),
               StrCat(tier.miss_chunks), StrCat(tier.evicted_chunks),
               StrCat(tier.dropped_pages), StrCat(tier.lost_chunks),
               StrCat(tier.hole_chunks), HumanBytes(tier.written_bytes),
               HumanBytes(tier.read_bytes)});
  }
  Table spaces({"namespace", "models", "sessions", "sequences", "chunks", "on disk",
                "pinned", "unsealed", "tokens appended", "items retrieved"});
  for (const client::NamespaceStats& space : stats.namespaces) {
    spaces.Add({space.name, StrCat(space.models), StrCat(space.sessions),
                StrCat(space.sequences), StrCat(space.chunks),
                HumanBytes(space.disk_bytes), HumanBytes(space.pinned_bytes),
                HumanBytes(space.unsealed_bytes), StrCat(space.appended_tokens),
                StrCat(space.retrieve_items)});
  }
  absl::StrAppend(&text, tiers.Text(), "\n");
  for (const client::TierStats& tier : stats.tiers) {
    if (tier.evicted_chunks == 0) continue;
    std::vector<std::string> reasons;
    for (const client::TierStats::Eviction& one : tier.evictions) {
      if (one.chunks > 0) reasons.push_back(StrCat(one.chunks, " for ", one.reason));
    }
    absl::StrAppend(&text, tier.tier, ": evicted ", absl::StrJoin(reasons, ", "), "\n\n");
  }
  for (const client::TierStats& tier : stats.tiers) {
    for (const std::string& one : tier.complaints) {
      absl::StrAppend(&text, tier.tier, ": ", one, "\n");
    }
    if (!tier.complaints.empty()) absl::StrAppend(&text, "\n");
  }
  absl::StrAppend(&text, spaces.Text());
  return sessions.empty() ? text : StrCat(text, "\n", SessionsTable(sessions));
}

std::string SessionsTable(const std::vector<client::SessionInfo>& sessions) {
  Table table({"namespace", "session", "worker", "pid", "age", "sequences", "unsealed"});
  for (const client::SessionInfo& info : sessions) {
    table.Add({info.namespace_name, StrCat(info.session_id), info.worker_label,
               StrCat(info.worker_pid), HumanSeconds(info.age_seconds),
               StrCat(info.sequences), HumanBytes(info.unsealed_bytes)});
  }
  return table.Text();
}

std::string SessionsJson(const std::vector<client::SessionInfo>& sessions) {
  JsonWriter json;
  json.BeginObject();
  WriteSessions(sessions, &json);
  json.EndObject();
  return json.text() + "\n";
}

std::string StatusJson(const client::Stats& stats,
                       const std::vector<client::SessionInfo>& sessions) {
  JsonWriter json;
  json.BeginObject();
  WriteStats(stats, &json);
  WriteSessions(sessions, &json);
  json.EndObject();
  return json.text() + "\n";
}

std::string SequencesTable(const std::vector<client::SequenceInfo>& sequences) {
  Table table({"namespace", "sequence", "session", "model", "system", "budget", "sealed",
               "tail", "cached"});
  for (const client::SequenceInfo& info : sequences) {
    table.Add({info.namespace_name, StrCat(info.sequence_id), StrCat(info.session_id),
               info.model_label, info.system, StrCat(info.budget_tokens),
               StrCat(info.sealed_tokens), StrCat(info.tail_tokens),
               StrCat(info.cached_tokens)});
  }
  return table.Text();
}

std::string SequencesJson(const std::vector<client::SequenceInfo>& sequences) {
  JsonWriter json;
  json.BeginObject();
  json.BeginArray("sequences");
  for (const client::SequenceInfo& info : sequences) {
    json.BeginObject();
    json.Field("namespace_name", info.namespace_name);
    json.Field("sequence_id", info.sequence_id);
    json.Field("session_id", info.session_id);
    json.Field("model_label", info.model_label);
    json.Field("system", info.system);
    json.Field("budget_tokens", info.budget_tokens);
    json.Field("sealed_tokens", info.sealed_tokens);
    json.Field("tail_tokens", info.tail_tokens);
    json.Field("cached_tokens", info.cached_tokens);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  return json.text() + "\n";
}

std::string ModelsTable(const std::vector<client::ModelInfo>& models, uint64_t tokens) {
  Table table({"namespace", "model", "digest", "layers", "dtype", "tokens", "host",
               "of it abstracts", "disk"});
  for (const client::ModelInfo& model : models) {
    const ModelCost cost = CostOf(model, tokens);
    table.Add({model.namespace_name, model.label, model.digest.substr(0, 12),
               StrCat(model.layers), model.dtype, StrCat(cost.tokens),
               HumanBytes(cost.host_bytes), HumanBytes(cost.abstract_bytes),
               HumanBytes(cost.disk_bytes)});
  }
  return table.Text();
}

std::string ModelsJson(const std::vector<client::ModelInfo>& models, uint64_t tokens) {
  JsonWriter json;
  json.BeginObject();
  json.BeginArray("models");
  for (const client::ModelInfo& model : models) {
    const ModelCost cost = CostOf(model, tokens);
    json.BeginObject();
    json.Field("namespace_name", model.namespace_name);
    json.Field("label", model.label);
    json.Field("model_digest", model.digest);
    json.Field("layers", uint64_t{model.layers});
    json.Field("dtype", model.dtype);
    json.Field("chunk_tokens", uint64_t{model.chunk_tokens});
    json.Field("rows_bytes", model.rows_bytes);
    json.Field("abstract_bytes", model.abstract_bytes);
    json.Field("table_bytes", model.table_bytes);
    json.Field("disk_bytes", model.disk_bytes);
    json.Field("size_tokens", cost.tokens);
    json.Field("size_host_bytes", cost.host_bytes);
    json.Field("size_abstract_bytes", cost.abstract_bytes);
    json.Field("size_disk_bytes", cost.disk_bytes);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  return json.text() + "\n";
}

std::string WatchHeader() {
  return absl::StrFormat(kWatchFormat, "used", "chunks", "evicted", "sessions",
                         "sequences", "tokens", "+tokens", "+retrieved");
}

std::string WatchLine(const client::Stats& stats, const client::Stats* before) {
  const Totals now = Sum(stats);
  const Totals then = before == nullptr ? now : Sum(*before);
  return absl::StrFormat(kWatchFormat, HumanBytes(now.used_bytes), StrCat(now.chunks),
                         StrCat(now.evicted_chunks), StrCat(now.sessions),
                         StrCat(now.sequences), StrCat(now.appended_tokens),
                         StrCat(now.appended_tokens - then.appended_tokens),
                         StrCat(now.retrieve_items - then.retrieve_items));
}

std::string StatsJson(const client::Stats& stats) {
  JsonWriter json;
  json.BeginObject();
  WriteStats(stats, &json);
  json.EndObject();
  return json.text() + "\n";
}

}  // namespace kvtier::cli
