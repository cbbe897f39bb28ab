// Reading: runs of near pages into staging, verified there, and only then copied out.

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/host/checksum.h"
#include "tiers/disk/disk_engine.h"
#include "tiers/page_checksum.h"

namespace kvtier::tiers {
namespace {

// Pages this near are read with one request: the device takes about as long for the gap
// as for a request more.
constexpr uint64_t kGapBytesMax = 32 << 10;
constexpr uint64_t kRunBytesMax = 1 << 20;
// Few reads are finished where they were reaped, so that no thread has to be woken.
constexpr size_t kReadsAtOnceMax = 48;
constexpr uint64_t kAtOnceBytesMax = 64 << 10;
// Jobs that finish reads, and how many reads one of them may have before it before
// another is started: two check and copy faster than an NVMe reads.
constexpr size_t kFinishersMax = 2;
constexpr size_t kReadsPerFinisher = 16;

}  // namespace

void DiskEngine::ReadAbstracts(const DiskChunk& chunk, std::vector<std::byte*> abstracts,
                               std::vector<uint32_t>* page_crcs, IoPriority priority,
                               ReadDone done) {
  auto op = std::make_shared<ReadOp>();
  op->wants_abstracts = true;
  op->abstracts = std::move(abstracts);
  op->page_crcs_out = page_crcs;
  ReadPinned(op, chunk, priority, std::move(done));
}

void DiskEngine::ReadPages(const DiskChunk& chunk, std::vector<DiskPageRead> pages,
                           IoPriority priority, ReadDone done) {
  auto op = std::make_shared<ReadOp>();
  op->pages = std::move(pages);
  ReadPinned(op, chunk, priority, std::move(done));
}

void DiskEngine::ReadPinned(const ReadRef& op, const DiskChunk& chunk,
                            IoPriority priority, ReadDone done) {
  Later later;
  {
    MutexLock lock(&mu_);
    op->pin = PinOf(chunk);
    ++op->pin->references;
    op->priority = priority;
    op->done = std::move(done);
    TouchEntry(op->pin->index, ChunkUse::kStill);
    StartRead(op, &later);
  }
  Run(std::move(later));
}

DiskEngine::ReadRef DiskEngine::WholeChunk(Index index, IoPriority priority,
                                           ReadDone done) {
  auto op = std::make_shared<ReadOp>();
  op->pin = AddPin(index);
  op->priority = priority;
  op->wants_abstracts = true;
  op->done = std::move(done);
  const DiskGeometry& geometry = GeometryOf(index).geometry;
  for (uint32_t layer = 0; layer < geometry.layers.size(); ++layer) {
    for (uint32_t head = 0; head < geometry.layers[layer].kv_heads; ++head) {
      op->pages.push_back({.layer = LayerIndex(layer), .kv_head = head, .data = nullptr});
    }
  }
  return op;
}

void DiskEngine::PlanRuns(ReadOp& op) {
  const ExtentLayout& layout = op.geometry->layout;
  if (op.wants_abstracts) {
    op.runs.push_back({.offset = 0, .bytes = layout.pages_offset()});
  } else if (op.page_crcs == nullptr) {
    op.runs.push_back({.offset = 0, .bytes = layout.header_bytes()});
  }
  const auto offset_of = [&](const DiskPageRead& page) {
    return layout.PageOffset(page.layer, page.kv_head);
  };
  std::sort(op.pages.begin(), op.pages.end(),
            [&](const DiskPageRead& a, const DiskPageRead& b) {
              return offset_of(a) < offset_of(b);
            });
  bool fresh = true;
  for (size_t i = 0; i < op.pages.size(); ++i) {
    const uint64_t offset = offset_of(op.pages[i]);
    const uint64_t end = offset + RoundUpToUnit(layout.page_bytes(op.pages[i].layer));
    if (!fresh) {
      ReadRun& run = op.runs.back();
      const bool near = offset <= run.offset + run.bytes + kGapBytesMax;
      if (near && end - run.offset <= kRunBytesMax) {
        run.bytes = std::max(run.bytes, end - run.offset);
        ++run.page_count;
        continue;
      }
    }
    op.runs.push_back(
        {.offset = offset, .bytes = end - offset, .first_page = i, .page_count = 1});
    fresh = false;
  }
}

void DiskEngine::StartRead(const ReadRef& op, Later* later) {
  const Index index = op->pin->index;
  const ChunkTable::Entry& entry = table_[index];
  op->geometry = &GeometryOf(index);
  op->name = entry.name;
  op->generation = entry.generation;
  op->segment = entry.place.segment;
  op->extent_offset = space_.OffsetOf(entry.place);
  op->page_crcs = op->pin->page_crcs;
  PlanRuns(*op);
  waiting_reads_[static_cast<size_t>(op->priority)].push_back(op);
  PumpReads(later);
}

void DiskEngine::PumpReads(Later* later) {
  for (auto& queue : waiting_reads_) {
    while (!queue.empty()) {
      const ReadRef op = queue.front();
      std::vector<uint64_t> sizes;
      for (const ReadRun& run : op->runs) sizes.push_back(run.bytes);
      std::vector<BlockIo::Buffer> buffers;
      const absl::Status staged = read_staging_.Take(sizes, &buffers);
      // Somebody's staging comes back, and with it another call.
      if (absl::IsResourceExhausted(staged)) return;
      queue.pop_front();
      op->status = staged;
      if (!staged.ok() || op->runs.empty()) {
        op->runs.clear();
        later->work.push_back([this, op] { FinishRead(op); });
        continue;
      }
      op->unfinished = op->unreleased = op->runs.size();
      ++reads_under_way_;
      for (size_t i = 0; i < op->runs.size(); ++i) {
        ReadRun& run = op->runs[i];
        run.buffer = std::move(buffers[i]);
        counts_.read_bytes += run.bytes;
        op->bytes += run.bytes;
        later->io.push_back(
            {.kind = IoKind::kRead,
             .priority = op->priority,
             .segment = op->segment,
             .offset = op->extent_offset + run.offset,
             .data = run.buffer.data(),
             .bytes = run.bytes,
             .done = [this, op](absl::Status s) { OnRead(op, std::move(s)); },
             .released = [this, op] { OnReadReleased(op); }});
      }
    }
  }
}

void DiskEngine::OnRead(const ReadRef& op, absl::Status status) {
  Later later;
  bool at_once = false;
  {
    MutexLock lock(&mu_);
    op->status.Update(status);
    if (--op->unfinished > 0) return;
    --reads_under_way_;
    if (op->priority > IoPriority::kPrefetch) {
      later.work.push_back([this, op] { FinishRead(op); });
    } else if (to_finish_.empty() && reads_under_way_ < kReadsAtOnceMax &&
               op->bytes <= kAtOnceBytesMax) {
      at_once = true;
    } else {
      to_finish_.push_back(op);
      if (finishers_ < kFinishersMax &&
          to_finish_.size() > finishers_ * kReadsPerFinisher) {
        ++finishers_;
        later.work.push_back([this] { FinishReads(); });
      }
    }
  }
  if (at_once) {
    FinishRead(op);
  } else {
    Run(std::move(later));
  }
}

void DiskEngine::FinishReads() {
  while (true) {
    ReadRef op;
    {
      MutexLock lock(&mu_);
      if (to_finish_.empty()) {
        --finishers_;
        return;
      }
      op = std::move(to_finish_.front());
      to_finish_.pop_front();
    }
    FinishRead(op);
  }
}

void DiskEngine::OnReadReleased(const ReadRef& op) {
  Later later;
  {
    MutexLock lock(&mu_);
    --op->unreleased;
    ReturnRuns(*op, &later);
  }
  Run(std::move(later));
}

void DiskEngine::ReturnRuns(ReadOp& op, Later* later) {
  if (!op.finished || op.unreleased > 0) return;
  for (ReadRun& run : std::exchange(op.runs, {})) {
    read_staging_.Return(std::move(run.buffer));
  }
  PumpReads(later);
}

void DiskEngine::FinishRead(const ReadRef& op) {
  if (op->status.ok()) op->status = VerifyAndCopy(*op);
  Later later;
  {
    MutexLock lock(&mu_);
    const Index index = op->pin->index;
    ChunkTable::Entry& entry = table_[index];
    if (op->status.ok()) {
      if (op->page_crcs != nullptr) op->pin->page_crcs = op->page_crcs;
      if (entry.unreadable) ReadsAgain(index);
    } else if (absl::IsDataLoss(op->status)) {
      if (entry.live && !entry.hole) MarkHole(index);
    } else if (!op->runs.empty() && !absl::IsCancelled(op->status)) {
      Degrade(read_fault_, op->status);
      if (entry.live && !entry.unreadable && !entry.hole) {
        entry.unreadable = true;
        unreadable_.emplace_back(op->name, op->generation);
      }
    }
    DropPin(op->pin);
    op->finished = true;
    ReturnRuns(*op, &later);
    PumpWrites(&later);
  }
  Run(std::move(later));
  op->done(op->status);
}

absl::Status DiskEngine::CheckHeader(ReadOp& op, const ReadRun& run) {
  const ExtentLayout& layout = op.geometry->layout;
  const absl::Span<const std::byte> bytes(run.buffer.data(), run.bytes);
  auto header = DecodeExtentHeader(bytes.first(layout.header_bytes()));
  if (!header.ok()) return header.status();
  if (header->name != op.name || header->generation != op.generation ||
      header->geometry != op.geometry->id ||
      header->page_crcs.size() != layout.page_count()) {
    return absl::DataLossError("the extent holds another chunk");
  }
  op.page_crcs =
      std::make_shared<const std::vector<uint32_t>>(std::move(header->page_crcs));
  if (!op.wants_abstracts) return absl::OkStatus();
  const std::byte* abstracts = bytes.data() + layout.abstracts_offset();
  const uint32_t crc = kernels::Crc32c(AbstractsSeed(op.name, op.generation), abstracts,
                                       layout.abstract_bytes());
  if (crc != header->abstracts_crc) {
    return absl::DataLossError("the abstracts don't verify");
  }
  return absl::OkStatus();
}

absl::Status DiskEngine::VerifyAndCopy(ReadOp& op) {
  const ExtentLayout& layout = op.geometry->layout;
  const ReadRun* header = nullptr;
  for (const ReadRun& run : op.runs) {
    if (run.page_count == 0) header = &run;
  }
  absl::Status status;
  if (header != nullptr) status = CheckHeader(op, *header);
  for (const ReadRun& run : op.runs) {
    for (size_t i = run.first_page; i < run.first_page + run.page_count; ++i) {
      if (!status.ok()) break;
      const DiskPageRead& page = op.pages[i];
      const std::byte* bytes =
          run.buffer.data() + layout.PageOffset(page.layer, page.kv_head) - run.offset;
      const uint32_t seed = PageSeed(op.name, page.layer, page.kv_head);
      const uint32_t crc = kernels::Crc32c(seed, bytes, layout.page_bytes(page.layer));
      if (crc == (*op.page_crcs)[layout.PageIndex(page.layer, page.kv_head)]) continue;
      status = absl::DataLossError(absl::StrCat("the page of layer ", page.layer.value(),
                                                ", kv head ", page.kv_head,
                                                " doesn't verify"));
    }
  }
  if (!status.ok()) return status;
  // Nothing is handed out unless all verified.
  for (size_t layer = 0, offset = layout.abstracts_offset(); layer < op.abstracts.size();
       ++layer) {
    const size_t bytes = op.geometry->geometry.layers[layer].abstract_bytes;
    std::memcpy(op.abstracts[layer], header->buffer.data() + offset, bytes);
    offset += bytes;
  }
  if (op.page_crcs_out != nullptr) *op.page_crcs_out = *op.page_crcs;
  for (const ReadRun& run : op.runs) {
    for (size_t i = run.first_page; i < run.first_page + run.page_count; ++i) {
      const DiskPageRead& page = op.pages[i];
      if (page.data == nullptr) continue;
      std::memcpy(
          page.data,
          run.buffer.data() + layout.PageOffset(page.layer, page.kv_head) - run.offset,
          layout.page_bytes(page.layer));
    }
  }
  return absl::OkStatus();
}

}  // namespace kvtier::tiers
