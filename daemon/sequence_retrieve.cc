// Sequence's Retrieve: select, remember, and answer with what the worker lacks.

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/selection_parts.h"
#include "daemon/sequence.h"

namespace kvtier::daemon {

absl::Status Sequence::Retrieve(const RetrieveItem& item, uint64_t part_bytes_max,
                                absl::FunctionRef<bool(RetrievePart)> sink) {
  context_.counters->retrieve_items.Add(1);
  const retrieval::ModelSpec& spec = context_.model->spec;
  if (item.layer.value() >= spec.layers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", item.layer.value(),
                                                   " is out of range: the model has ",
                                                   spec.layers.size()));
  }
  const retrieval::LayerSpec& layer = context_.model->layer(item.layer);
  SelectionParts parts(SelectionParts::Shape{.kv_heads = layer.kv_heads,
                                             .row_bytes = layer.RowBytes(spec.dtype),
                                             .form = item.form,
                                             .part_bytes_max = part_bytes_max});
  uint64_t truncations = 0;
  bool selected = false;
  while (!parts.done()) {
    RetrievePart part;
    {
      MutexLock lock(&mu_);
      if (!selected) {
        if (absl::Status s = Select(item, &parts); !s.ok()) return s;
        truncations = truncations_;
        selected = true;
      } else if (truncations_ != truncations) {
        return absl::FailedPreconditionError(
            "the sequence was truncated while its selection was sent: ask again");
      }
      absl::StatusOr<RetrievePart> next = NextPart(item.layer, &parts);
      if (!next.ok()) return next.status();
      part = *std::move(next);
    }
    context_.store_counters->read_bytes.Add(part.rows.size());
    if (!sink(std::move(part))) return absl::CancelledError("the reader went away");
  }
  return absl::OkStatus();
}

absl::StatusOr<RetrievePart> Sequence::NextPart(LayerIndex layer, SelectionParts* parts) {
  RetrievePart part = parts->Next();
  std::vector<std::pair<uint32_t, uint32_t>> pages;
  parts->VisitPages(
      part, [&](uint32_t head, uint32_t chunk) { pages.emplace_back(head, chunk); });
  tiers::PagePins pins;
  uint64_t disk_bytes = 0;
  if (absl::Status s = LoadPages(layer, pages, &pins, &disk_bytes); !s.ok()) return s;
  parts->AddDiskBytes(disk_bytes, &part);
  parts->FillRows(ViewOf(layer), &part);
  return part;
}

absl::Status Sequence::LoadPages(LayerIndex layer,
                                 absl::Span<const std::pair<uint32_t, uint32_t>> pages,
                                 tiers::PagePins* pins, uint64_t* disk_bytes) {
  std::vector<SealedPage> needed;
  needed.reserve(pages.size());
  for (const auto& [head, chunk] : pages) {
    needed.push_back(SealedPage{chunk, layer, head});
  }
  if (absl::Status s = LoadSealed(needed, pins, disk_bytes); !s.ok()) return s;
  LayerPages& known = pages_[layer.value()];
  for (const auto& [head, chunk] : pages) {
    known.pages[head * known.chunk_count + chunk].rows =
        sealed_[chunk]->page(layer, head);
  }
  return absl::OkStatus();
}

absl::Status Sequence::CheckItem(const RetrieveItem& item) const {
  const retrieval::LayerSpec& layer = context_.model->layer(item.layer);
  if (item.step == StepIndex(0)) {
    return absl::InvalidArgumentError("step is 0: steps count from 1");
  }
  if (item.step < last_step_) {
    return absl::FailedPreconditionError(
        absl::StrCat("step ", item.step.value(), " is before the last one, ",
                     last_step_.value(), ": steps never go back"));
  }
  const uint64_t expected =
      uint64_t{item.query_count} * layer.query_heads * layer.key_dim * sizeof(float);
  if (item.query_count == 0 || item.query.size() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("the query has ", item.query.size(), " bytes, but ",
                     item.query_count, " queries x ", layer.query_heads, " heads x ",
                     layer.key_dim, " f32 elements are ", expected));
  }
  if (item.candidates_end.value() > SealedTokenCount()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "candidates_end is ", item.candidates_end.value(), ", but only ",
        SealedTokenCount(), " tokens are sealed: hold the tail in the worker"));
  }
  if (item.candidates_begin > item.candidates_end) {
    return absl::InvalidArgumentError(
        absl::StrCat("candidates_begin is ", item.candidates_begin.value(),
                     ", after candidates_end, ", item.candidates_end.value()));
  }
  return absl::OkStatus();
}

absl::Status Sequence::Select(const RetrieveItem& item, SelectionParts* parts) {
  if (absl::Status s = CheckItem(item); !s.ok()) return s;
  if (absl::Status s = ExtendPages(item.layer); !s.ok()) return s;
  RetrieveCost cost;
  tiers::PagePins pins;
  if (context_.system->reads_rows()) {
    std::vector<std::pair<uint32_t, uint32_t>> pages;
    for (uint32_t head = 0; head < context_.model->layer(item.layer).kv_heads; ++head) {
      for (uint32_t chunk = 0; chunk < sealed_.size(); ++chunk) {
        pages.emplace_back(head, chunk);
      }
    }
    if (absl::Status s = LoadPages(item.layer, pages, &pins, &cost.disk_bytes); !s.ok()) {
      return s;
    }
  }
  const retrieval::LayerView view = ViewOf(item.layer);
  std::vector<float> values(item.query.size() / sizeof(float));
  std::memcpy(values.data(), item.query.data(), item.query.size());
  const retrieval::Query query{.values = values,
                               .query_count = item.query_count,
                               .candidates_begin = item.candidates_begin,
                               .candidates_end = item.candidates_end};
  LayerMemory& memory = memory_[item.layer.value()];
  absl::StatusOr<retrieval::Selected> selected = RunSystem(view, query, item, &memory);
  if (!selected.ok()) return selected.status();
  last_step_ = item.step;

  cost.abstract_bytes = selected->abstract_bytes;
  if (selected->everything) {
    parts->SetEverything(static_cast<uint32_t>(item.candidates_begin.value()),
                         static_cast<uint32_t>(item.candidates_end.value()));
    cost.tokens_selected = parts->added_rows();
  } else {
    cost.tokens_selected = AnswerDelta(item, &*selected, &memory, parts);
  }
  const uint64_t sent_bytes = item.form == SelectionForm::kRows
                                  ? parts->added_rows() * view.spec->RowBytes(view.dtype)
                                  : 0;
  cost.host_bytes = selected->row_bytes + sent_bytes;
  context_.store_counters->read_bytes.Add(cost.abstract_bytes + selected->row_bytes);
  parts->SetRest(std::move(selected->rest_output), std::move(selected->rest_lse));
  parts->SetCost(cost);
  return absl::OkStatus();
}

absl::StatusOr<retrieval::Selected> Sequence::RunSystem(const retrieval::LayerView& view,
                                                        const retrieval::Query& query,
                                                        const RetrieveItem& item,
                                                        LayerMemory* memory) const {
  // A step asked again starts from what was before it, so that it ends the same.
  std::unique_ptr<retrieval::LayerState> before;
  const bool again = memory->step == item.step;
  const retrieval::LayerState* start =
      again ? memory->state_before.get() : memory->state.get();
  std::unique_ptr<retrieval::LayerState> state;
  if (start != nullptr) {
    before = start->Clone();
    state = start->Clone();
  } else {
    state = context_.system->NewState();
  }
  absl::StatusOr<retrieval::Selected> selected =
      context_.system->Select(view, query, state.get(), *context_.helpers);
  if (selected.ok() && selected->unchanged && memory->held.current() == nullptr) {
    // What stands was forgotten: choose afresh.
    state = context_.system->NewState();
    selected = context_.system->Select(view, query, state.get(), *context_.helpers);
    if (selected.ok() && selected->unchanged) {
      return absl::InternalError("a system without memory answered `unchanged`");
    }
  }
  if (!selected.ok()) return selected.status();
  memory->state = std::move(state);
  memory->state_before = std::move(before);
  memory->step = item.step;
  return selected;
}

uint64_t Sequence::AnswerDelta(const RetrieveItem& item, retrieval::Selected* selected,
                               LayerMemory* memory, SelectionParts* parts) {
  const HeldTokens* held = memory->held.Find(item.held_step);
  std::shared_ptr<const HeldTokens> standing;
  std::vector<std::vector<uint32_t>> tokens;
  if (selected->unchanged) {
    standing = memory->held.current();
    if (held == standing.get()) {
      parts->SetUnchanged();
      memory->held.Remember(item.step, item.held_step, standing);
      uint64_t count = 0;
      for (const std::vector<uint32_t>& of_head : standing->of_head) {
        count += of_head.size();
      }
      return count;
    }
    tokens = standing->of_head;
    for (std::vector<uint32_t>& of_head : tokens) {
      std::sort(of_head.begin(), of_head.end());
    }
  } else {
    tokens = std::move(selected->tokens);
  }
  uint64_t count = 0;
  for (const std::vector<uint32_t>& of_head : tokens) count += of_head.size();
  SelectionDelta delta = MakeDelta(held, std::move(tokens));
  parts->SetDelta(std::move(delta.kept), std::move(delta.added));

  // Without memory to remember it, the next answer is whole instead of a delta.
  std::shared_ptr<HeldTokens> remembered;
  absl::StatusOr<tiers::Charge> charge =
      context_.directory->Reserve(HeldTokens::BytesFor(delta.order));
  if (charge.ok()) {
    remembered = std::make_shared<HeldTokens>();
    remembered->of_head = std::move(delta.order);
    remembered->charge = *std::move(charge);
  }
  memory->held.Remember(item.step, item.held_step, std::move(remembered));
  return count;
}

retrieval::LayerView Sequence::ViewOf(LayerIndex layer) const {
  const LayerPages& pages = pages_[layer.value()];
  return retrieval::LayerView{.spec = &context_.model->layer(layer),
                              .layout = &context_.model->layouts[layer.value()],
                              .dtype = context_.model->spec.dtype,
                              .layer = layer,
                              .chunk_count = pages.chunk_count,
                              .pages = pages.pages};
}

absl::Status Sequence::ExtendPages(LayerIndex layer) {
  LayerPages& known = pages_[layer.value()];
  const size_t chunk_count = sealed_.size();
  if (known.chunk_count == chunk_count) return absl::OkStatus();
  const uint32_t heads = context_.model->layer(layer).kv_heads;
  const size_t abstract_bytes =
      context_.model->layouts[layer.value()].page_abstract_bytes;
  LayerPages extended;
  absl::StatusOr<tiers::Charge> charge =
      context_.directory->Reserve(heads * chunk_count * sizeof(retrieval::PageView));
  if (!charge.ok()) return charge.status();
  extended.charge = *std::move(charge);
  extended.chunk_count = chunk_count;
  extended.pages.resize(heads * chunk_count);
  for (uint32_t head = 0; head < heads; ++head) {
    retrieval::PageView* pages = extended.pages.data() + head * chunk_count;
    std::copy_n(known.pages.data() + head * known.chunk_count, known.chunk_count, pages);
    for (size_t chunk = known.chunk_count; chunk < chunk_count; ++chunk) {
      pages[chunk] = retrieval::PageView{
          .rows = sealed_[chunk]->page(layer, head),
          .abstract = sealed_[chunk]->abstract(layer) + head * abstract_bytes};
    }
  }
  known = std::move(extended);
  return absl::OkStatus();
}

}  // namespace kvtier::daemon
