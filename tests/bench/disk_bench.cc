// Question: does the disk tier give what the device has?
// Method: a tier on files of its own, in this process, as kvtierd runs it (io_uring,
//   O_DIRECT, every byte verified), beside a bare io_uring probe of the same requests:
//   same lengths, as many at a time, registered files and buffers. It reads the tier's
//   own segments, and writes to a file beside them. Random requests draw their places
//   again each round.
//     page_read        single pages, 32 KiB, 32 at a time
//     block_read       the 8 pages of a layer, which lie together: 256 KiB, 8 at a time
//     restore          whole chunks one after another, 1 MiB requests, all pages verified
//     durable_write    chunks until durable, over space that was used before; with what
//     it
//                      takes to evict the old ones
//     durable_write_fresh  the same into a new directory's segments, which were zeroed
//                      ahead of use; the probe writes into a file that was
//     durable_write_filling  into a new directory at once: making and zeroing segments
//                      counts, and the probe writes into a file that is only allocated
//     demand_under_write  p99 of a page read, one at a time, while chunks are written all
//                      the time, against without
// Expectation: the device is the limit: checksums take 0.1 s of CPU a GB, copies as much.
//   What fills a directory at once is written twice: 0.5. Write-behind keeps 32 requests
//   of 1 MiB in the device's queue: a read behind them waits for some of them, 0.1 to
//   0.5.
// Measured: README.md.

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/bench.h"
#include "tests/bench/disk_load.h"
#include "tests/bench/raw_disk.h"
#include "tests/bench/rounds.h"
#include "tiers/disk/block_io.h"
#include "tiers/disk/extent_layout.h"

namespace kvtier::bench {
namespace {

using tiers::DiskChunk;
using tiers::DiskWrite;
using Requests = std::vector<RawDisk::Request>;

constexpr size_t kRequestBytes = 1 << 20;
constexpr size_t kChunksAtATime = 4;
// As a prompt's end leaves them; the tier takes as many as its staging holds.
constexpr size_t kWritesAtATime = 16;

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// GB/s of what took so long.
absl::StatusOr<double> Rate(double gigabytes, const absl::StatusOr<double>& seconds) {
  if (!seconds.ok()) return seconds.status();
  return gigabytes / *seconds;
}

// Adds up what ours took of the processor, the rounds that don't count too.
class CpuPerGb {
 public:
  // GB/s of `work`.
  absl::StatusOr<double> Rate(double gigabytes, absl::FunctionRef<absl::Status()> work) {
    const double before = CpuSeconds();
    const Stopwatch stopwatch;
    absl::Status status = work();
    const double seconds = stopwatch.Seconds();
    seconds_ += CpuSeconds() - before;
    gigabytes_ += gigabytes;
    if (!status.ok()) return status;
    return gigabytes / seconds;
  }
  void Report(Row* row) const {
    row->details.push_back(
        {"cpu_s_per_gb", absl::StrFormat("%.2f", seconds_ / gigabytes_)});
  }

 private:
  double seconds_ = 0.0;
  double gigabytes_ = 0.0;
};

// A tier with chunks in it, and a probe of its segments.
struct Filled {
  std::unique_ptr<DiskLoad> load;
  std::unique_ptr<RawDisk> raw;
  std::vector<DiskChunk> chunks;
  uint64_t bytes = 0;  // of the chunks' extents
};

uint64_t Capacity(const Settings& settings) {
  // A tier has a least size for chunks as large as these.
  return std::max<uint64_t>(uint64_t{512} << 20, settings.footprint_bytes * 2);
}

uint64_t ChunkCount(const DiskLoad& load, uint64_t bytes) {
  return std::max<uint64_t>(kChunksAtATime, bytes / load.extent_bytes());
}

std::vector<DiskWrite> NewChunks(DiskLoad& load, uint64_t bytes) {
  std::vector<DiskWrite> chunks(ChunkCount(load, bytes));
  for (DiskWrite& chunk : chunks) chunk = load.NewChunk();
  return chunks;
}

// All of [begin, begin + bytes), in order.
void AddSequential(uint64_t begin, uint64_t bytes, Requests* requests, int file = 0) {
  for (uint64_t at = 0; at < bytes; at += kRequestBytes) {
    requests->push_back({.offset = begin + at,
                         .bytes = std::min<uint64_t>(kRequestBytes, bytes - at),
                         .file = file});
  }
}

absl::StatusOr<Filled> Fill(const Settings& settings) {
  Filled filled;
  auto load = DiskLoad::Open(settings.disk_directory, Capacity(settings));
  if (!load.ok()) return load.status();
  filled.load = *std::move(load);
  const std::vector<DiskWrite> chunks = NewChunks(*filled.load, settings.footprint_bytes);
  absl::Status status = filled.load->Write(chunks, kChunksAtATime);
  if (!status.ok()) return status;
  filled.chunks = filled.load->Find(chunks);
  if (filled.chunks.size() != chunks.size()) {
    return absl::InternalError("the disk tier does not hold what it was given");
  }
  filled.bytes = chunks.size() * filled.load->extent_bytes();
  auto raw = RawDisk::OpenSegments(filled.load->directory());
  if (!raw.ok()) return raw.status();
  filled.raw = *std::move(raw);
  return filled;
}

// Random reads of `pages` neighbours of a layer.
absl::Status RandomBench(const Settings& settings, uint32_t pages, size_t depth,
                         Row* row) {
  auto filled = Fill(settings);
  if (!filled.ok()) return filled.status();
  DiskLoad& load = *filled->load;
  const size_t read_bytes = size_t{pages} * load.page_bytes();
  const size_t count = std::max<size_t>(64, filled->bytes / read_bytes / 2);
  const double gigabytes = static_cast<double>(count * read_bytes) / 1e9;
  std::mt19937_64 random(7);
  std::vector<std::byte> buffers(depth * read_bytes);
  struct Place {
    size_t chunk = 0;
    LayerIndex layer;
    uint32_t first_head = 0;
  };
  CpuPerGb cpu;
  const auto ours = [&]() -> absl::StatusOr<double> {
    std::vector<Place> places(count);
    for (Place& place : places) {
      place = {
          .chunk = random() % filled->chunks.size(),
          .layer = LayerIndex(static_cast<uint32_t>(random() % DiskLoad::kLayers)),
          .first_head = static_cast<uint32_t>(random() % (load.heads() - pages + 1))};
    }
    return cpu.Rate(gigabytes, [&] {
      return InFlight(count, depth, [&](size_t i, Ended ended) {
        // Two reads may share a buffer: nobody looks at it.
        std::byte* out = buffers.data() + i % depth * read_bytes;
        std::vector<tiers::DiskPageRead> reads;
        for (uint32_t p = 0; p < pages; ++p) {
          reads.push_back({.layer = places[i].layer,
                           .kv_head = places[i].first_head + p,
                           .data = out + size_t{p} * load.page_bytes()});
        }
        load.tier().ReadPages(filled->chunks[places[i].chunk], std::move(reads),
                              tiers::IoPriority::kDemand, std::move(ended));
      });
    });
  };
  const auto ceiling = [&]() -> absl::StatusOr<double> {
    Requests requests(count);
    for (RawDisk::Request& request : requests) {
      const absl::Span<const uint64_t> files = filled->raw->file_bytes();
      const auto file = static_cast<int>(random() % files.size());
      const uint64_t places = (files[file] - read_bytes) / tiers::kIoUnit + 1;
      request = {.offset = random() % places * tiers::kIoUnit,
                 .bytes = read_bytes,
                 .file = file};
    }
    return Rate(gigabytes, filled->raw->Run(RawDisk::Kind::kRead, requests,
                                            static_cast<unsigned>(depth)));
  };
  row->unit = "GB/s";
  row->ceiling_is = "bare io_uring, the same requests";
  absl::Status status = RunRounds(settings.rounds, Better::kHigher, ours, ceiling, row);
  row->details = {{"request_bytes", absl::StrCat(read_bytes)},
                  {"at_a_time", absl::StrCat(depth)}};
  cpu.Report(row);
  return status;
}

absl::Status RestoreBench(const Settings& settings, Row* row) {
  auto filled = Fill(settings);
  if (!filled.ok()) return filled.status();
  DiskLoad& load = *filled->load;
  const double gigabytes = static_cast<double>(filled->bytes) / 1e9;
  std::vector<std::byte> pages(size_t{DiskLoad::kLayers} * load.heads() *
                               load.page_bytes());
  std::vector<std::byte> abstract(load.abstracts_bytes() / DiskLoad::kLayers);
  const std::vector<std::byte*> abstracts(DiskLoad::kLayers, abstract.data());
  const auto start = [&](size_t i, Ended ended) {
    const DiskChunk& chunk = filled->chunks[i / 2];
    if (i % 2 == 0) {
      load.tier().ReadAbstracts(chunk, abstracts, nullptr, tiers::IoPriority::kPrefetch,
                                std::move(ended));
      return;
    }
    std::vector<tiers::DiskPageRead> reads;
    for (uint32_t layer = 0; layer < DiskLoad::kLayers; ++layer) {
      for (uint32_t head = 0; head < load.heads(); ++head) {
        reads.push_back({.layer = LayerIndex(layer),
                         .kv_head = head,
                         .data = pages.data() + reads.size() * load.page_bytes()});
      }
    }
    load.tier().ReadPages(chunk, std::move(reads), tiers::IoPriority::kPrefetch,
                          std::move(ended));
  };
  CpuPerGb cpu;
  const auto ours = [&]() -> absl::StatusOr<double> {
    return cpu.Rate(gigabytes, [&] {
      return InFlight(2 * filled->chunks.size(), 2 * kChunksAtATime, start);
    });
  };
  Requests all;
  uint64_t left = filled->bytes;
  for (int file = 0; left > 0; ++file) {
    const uint64_t bytes = std::min(left, filled->raw->file_bytes()[file]);
    AddSequential(0, bytes, &all, file);
    left -= bytes;
  }
  const auto ceiling = [&]() -> absl::StatusOr<double> {
    return Rate(gigabytes, filled->raw->Run(RawDisk::Kind::kRead, all, 32));
  };
  row->unit = "GB/s";
  row->ceiling_is = "bare io_uring, as many bytes in 1 MiB reads, 32 at a time";
  absl::Status status = RunRounds(settings.rounds, Better::kHigher, ours, ceiling, row);
  row->details = {{"chunk_bytes", absl::StrCat(load.extent_bytes())},
                  {"chunks_at_a_time", absl::StrCat(kChunksAtATime)}};
  cpu.Report(row);
  return status;
}

enum class Space : uint8_t { kUsed, kZeroed, kNone };

// Waits till the tier has made what it keeps ready.
void AwaitReady(DiskLoad& load, const Settings& settings) {
  while (load.tier().Stats().segment_bytes < Capacity(settings) / 8) {
    std::this_thread::yield();
  }
}

absl::Status WriteBench(const Settings& settings, Space space, Row* row) {
  std::unique_ptr<DiskLoad> load;
  std::unique_ptr<RawDisk> raw;
  const auto open = [&]() -> absl::Status {
    raw.reset();
    load.reset();
    auto opened = DiskLoad::Open(settings.disk_directory, Capacity(settings));
    if (!opened.ok()) return opened.status();
    load = *std::move(opened);
    auto created = RawDisk::Create(load->directory(), Capacity(settings));
    if (!created.ok()) return created.status();
    raw = *std::move(created);
    return absl::OkStatus();
  };
  if (absl::Status status = open(); !status.ok()) return status;
  const auto write_all = [&]() -> absl::Status {
    Requests all;
    AddSequential(0, Capacity(settings), &all);
    return raw->Run(RawDisk::Kind::kWrite, all, 32).status();
  };
  if (space == Space::kUsed) {
    // Until something had to go.
    while (load->tier().Stats().evicted_chunks == 0) {
      absl::Status status =
          load->Write(NewChunks(*load, Capacity(settings) / 8), kChunksAtATime);
      if (!status.ok()) return status;
    }
    if (absl::Status status = write_all(); !status.ok()) return status;
  }
  uint64_t at = 0;
  CpuPerGb cpu;
  const auto ours = [&]() -> absl::StatusOr<double> {
    if (space != Space::kUsed) {
      if (absl::Status status = open(); !status.ok()) return status;
      at = 0;
    }
    if (space == Space::kZeroed) {
      if (absl::Status status = write_all(); !status.ok()) return status;
      AwaitReady(*load, settings);
    }
    const std::vector<DiskWrite> chunks = NewChunks(*load, settings.footprint_bytes / 4);
    const double gigabytes =
        static_cast<double>(chunks.size() * load->payload_bytes()) / 1e9;
    return cpu.Rate(gigabytes, [&] { return load->Write(chunks, kWritesAtATime); });
  };
  const auto ceiling = [&]() -> absl::StatusOr<double> {
    const uint64_t count = ChunkCount(*load, settings.footprint_bytes / 4);
    Requests requests;
    for (uint64_t i = 0; i < count; ++i) {
      if (at + load->extent_bytes() > Capacity(settings)) at = 0;
      AddSequential(at, load->extent_bytes(), &requests);
      at += load->extent_bytes();
    }
    return Rate(static_cast<double>(count * load->payload_bytes()) / 1e9,
                raw->Run(RawDisk::Kind::kWrite, requests, 32));
  };
  row->unit = "GB/s";
  row->ceiling_is = "bare io_uring, the same extents in 1 MiB writes, then fdatasync";
  absl::Status status = RunRounds(settings.rounds, Better::kHigher, ours, ceiling, row);
  row->details = {{"chunk_bytes", absl::StrCat(load->extent_bytes())},
                  {"chunks_at_a_time", absl::StrCat(kWritesAtATime)}};
  cpu.Report(row);
  return status;
}

absl::Status DemandBench(const Settings& settings, Row* row) {
  auto filled = Fill(settings);
  if (!filled.ok()) return filled.status();
  DiskLoad& load = *filled->load;
  const size_t count = settings.quick ? 200 : 1000;
  std::vector<std::byte> page(load.page_bytes());
  std::mt19937_64 random(7);
  const auto p99 = [&]() -> absl::StatusOr<double> {
    std::vector<double> microseconds;
    for (size_t i = 0; i < count; ++i) {
      const Stopwatch stopwatch;
      absl::Status status = InFlight(1, 1, [&](size_t, Ended ended) {
        const LayerIndex layer(static_cast<uint32_t>(random() % DiskLoad::kLayers));
        const auto head = static_cast<uint32_t>(random() % load.heads());
        load.tier().ReadPages(filled->chunks[random() % filled->chunks.size()],
                              {{.layer = layer, .kv_head = head, .data = page.data()}},
                              tiers::IoPriority::kDemand, std::move(ended));
      });
      if (!status.ok()) return status;
      microseconds.push_back(stopwatch.Seconds() * 1e6);
    }
    std::sort(microseconds.begin(), microseconds.end());
    return microseconds[count * 99 / 100];
  };
  const auto beside_writes = [&]() -> absl::StatusOr<double> {
    std::atomic<bool> stop = false;
    absl::Status written;
    // Their checksums are made beforehand, as an Append does. Rarely not enough: 1.5 GiB.
    std::vector<DiskWrite> chunks = NewChunks(load, settings.footprint_bytes * 3 / 2);
    std::thread writer([&] {
      while (!stop && written.ok()) {
        if (chunks.size() < kChunksAtATime) chunks = NewChunks(load, 0);
        const auto first = chunks.end() - kChunksAtATime;
        written = load.Write({first, chunks.end()}, kChunksAtATime);
        chunks.erase(first, chunks.end());
      }
    });
    absl::StatusOr<double> found = p99();
    stop = true;
    writer.join();
    if (!written.ok()) return written;
    return found;
  };
  row->unit = "us";
  row->ceiling_is = "the same without writes";
  absl::Status status =
      RunRounds(settings.rounds, Better::kLower, beside_writes, p99, row);
  row->details = {{"statistic", "p99"},
                  {"reads", absl::StrCat(count)},
                  {"request_bytes", absl::StrCat(load.page_bytes())}};
  return status;
}

}  // namespace

std::vector<Bench> DiskBenches() {
  const auto random = [](uint32_t pages, size_t depth) {
    return [pages, depth](const Settings& settings, Row* row) {
      return RandomBench(settings, pages, depth, row);
    };
  };
  const auto write = [](Space space) {
    return [space](const Settings& settings, Row* row) {
      return WriteBench(settings, space, row);
    };
  };
  return {{"disk.page_read", random(1, 32)},
          {"disk.block_read", random(8, 8)},
          {"disk.restore", RestoreBench},
          {"disk.durable_write", write(Space::kUsed)},
          {"disk.durable_write_fresh", write(Space::kZeroed)},
          {"disk.durable_write_filling", write(Space::kNone)},
          {"disk.demand_under_write", DemandBench}};
}

}  // namespace kvtier::bench
