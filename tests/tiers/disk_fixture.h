// A disk tier on the virtual disk with threads of its own, and calls that wait.

#ifndef KVTIER_TESTS_TIERS_DISK_FIXTURE_H_
#define KVTIER_TESTS_TIERS_DISK_FIXTURE_H_

#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/host/checksum.h"
#include "tests/sim/virtual_disk.h"
#include "tests/sim/virtual_files.h"
#include "tiers/disk/disk_tier.h"
#include "tiers/page_checksum.h"

namespace kvtier::tiers {

class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(int threads = 2) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
  }
  ~ThreadExecutor() override {
    {
      std::lock_guard<std::mutex> lock(mu_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void Post(std::function<void()> work) override {
    {
      std::lock_guard<std::mutex> lock(mu_);
      queue_.push_back(std::move(work));
    }
    wake_.notify_one();
  }

 private:
  void Work() {
    std::unique_lock<std::mutex> lock(mu_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

inline ChunkName NumberedName(uint32_t n) {
  ChunkName name;
  std::memcpy(name.bytes.data(), &n, sizeof(n));
  name.bytes[31] = 1;
  return name;
}

inline std::shared_ptr<const DiskGeometry> OneLayer(const std::string& space,
                                                    uint32_t heads, uint32_t page_bytes) {
  auto geometry = std::make_shared<DiskGeometry>();
  geometry->space = space;
  geometry->layers.push_back(
      {.kv_heads = heads, .page_bytes = page_bytes, .abstract_bytes = 100});
  return geometry;
}

class DiskTierFixture : public ::testing::Test {
 protected:
  // Its extents: header, abstracts, 2 pages of one unit: 16 KiB, 2 to a segment.
  static constexpr uint64_t kExtentBytes = 16 << 10;
  static constexpr uint64_t kSegmentBytes = 32 << 10;
  static constexpr uint64_t kSegments = 32;
  static constexpr uint32_t kNoParent = 0;

  struct Content {
    std::vector<std::vector<std::byte>> abstracts, pages;
    bool operator==(const Content&) const = default;
  };

  DiskTierFixture() { UseSegments(kSegments); }
  ~DiskTierFixture() override { Close(); }

  // At least 32. An eighth of the capacity is the catalog's.
  void UseSegments(uint64_t segments) {
    options_.capacity_bytes = segments * kSegmentBytes * 8 / 7 + 4096;
    options_.segment_bytes = kSegmentBytes;
  }

  absl::Status Open() {
    io_ = std::make_unique<sim::VirtualBlockIo>(segments_, sim::Completion::kAutomatic);
    files_ = sim::VirtualFiles::Create(files_image_);
    return OpenAgain();
  }
  absl::Status OpenAgain() {
    options_.scrub_bytes_per_second = scrub_;
    auto tier = DiskTier::Open(options_, io_.get(), files_->env(), &executor_);
    if (tier.ok()) tier_ = *std::move(tier);
    return tier.status();
  }
  void Close() {
    tier_.reset();
    if (io_ != nullptr) segments_ = io_->Images();
    if (files_ != nullptr) files_image_ = files_->Images();
  }
  absl::Status Restart() {
    Close();
    return Open();
  }

  // As a power failure that spares what was not synced: nothing is written at the end.
  absl::Status Kill() {
    const sim::FileImages files = files_->Images();
    Close();
    files_image_ = files;
    return Open();
  }
  // Closes the tier and changes its catalog; no value: what the key's was.
  std::optional<std::string> ChangeCatalog(const std::string& key,
                                           std::optional<std::string> value) {
    Close();
    files_ = sim::VirtualFiles::Create(files_image_);
    rocksdb::Options options;
    options.env = files_->env();
    rocksdb::DB* opened = nullptr;
    EXPECT_TRUE(rocksdb::DB::Open(options, "/disk/catalog", &opened).ok());
    std::unique_ptr<rocksdb::DB> db(opened);
    std::string before;
    const bool was_there = db->Get(rocksdb::ReadOptions(), key, &before).ok();
    if (value) {
      EXPECT_TRUE(db->Put(rocksdb::WriteOptions(), key, *value).ok());
    }
    db.reset();
    files_image_ = files_->Images();
    files_.reset();
    io_.reset();
    return was_there ? std::optional(before) : std::nullopt;
  }

  static Content ContentOf(const DiskGeometry& geometry, uint32_t seed) {
    Content content;
    uint32_t state = seed * 2654435761u + 1;
    const auto fill = [&state](size_t bytes) {
      std::vector<std::byte> filled(bytes);
      for (std::byte& b : filled) {
        state = state * 1664525 + 1013904223;
        b = static_cast<std::byte>(state >> 24);
      }
      return filled;
    };
    for (const DiskGeometry::Layer& layer : geometry.layers) {
      content.abstracts.push_back(fill(layer.abstract_bytes));
      for (uint32_t h = 0; h < layer.kv_heads; ++h) {
        content.pages.push_back(fill(layer.page_bytes));
      }
    }
    return content;
  }

  DiskWrite MakeWrite(uint32_t n, uint32_t parent,
                      std::shared_ptr<const DiskGeometry> geometry) {
    auto content = std::make_shared<Content>(ContentOf(*geometry, n));
    DiskWrite write;
    write.name = NumberedName(n);
    if (parent != kNoParent) write.parent = NumberedName(parent);
    for (const auto& abstract : content->abstracts)
      write.abstracts.push_back(abstract.data());
    size_t page = 0;
    for (uint32_t layer = 0; layer < geometry->layers.size(); ++layer) {
      for (uint32_t head = 0; head < geometry->layers[layer].kv_heads; ++head) {
        const auto& bytes = content->pages[page++];
        write.pages.push_back(bytes.data());
        write.page_crcs.push_back(kernels::Crc32c(
            PageSeed(write.name, LayerIndex(layer), head), bytes.data(), bytes.size()));
      }
    }
    write.geometry = std::move(geometry);
    write.keep = content;
    return write;
  }

  std::future<absl::StatusOr<DiskChunk>> StartWrite(DiskWrite write) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<DiskChunk>>>();
    tier_->Write(std::move(write), [promise](absl::StatusOr<DiskChunk> chunk) {
      promise->set_value(std::move(chunk));
    });
    return promise->get_future();
  }
  absl::StatusOr<DiskChunk> Write(uint32_t n, uint32_t parent = kNoParent) {
    return StartWrite(MakeWrite(n, parent, geometry_)).get();
  }
  absl::Status WriteAndRelease(uint32_t n, uint32_t parent = kNoParent) {
    return Write(n, parent).status();
  }

  // Calls, and waits for the callback.
  template <typename F>
  static absl::Status Await(F f) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    f([promise](absl::Status s) { promise->set_value(s); });
    return promise->get_future().get();
  }
  absl::StatusOr<Content> Read(const DiskChunk& chunk) {
    const DiskGeometry& geometry = tier_->Geometry(chunk);
    Content content = ContentOf(geometry, 0);
    std::vector<std::byte*> abstracts;
    for (auto& abstract : content.abstracts) abstracts.push_back(abstract.data());
    absl::Status status = Await([&](DiskTier::ReadDone done) {
      tier_->ReadAbstracts(chunk, abstracts, nullptr, IoPriority::kDemand, done);
    });
    if (!status.ok()) return status;
    std::vector<DiskPageRead> pages;
    size_t page = 0;
    for (uint32_t layer = 0; layer < geometry.layers.size(); ++layer) {
      for (uint32_t head = 0; head < geometry.layers[layer].kv_heads; ++head) {
        pages.push_back({LayerIndex(layer), head, content.pages[page++].data()});
      }
    }
    status = Await([&](DiskTier::ReadDone done) {
      tier_->ReadPages(chunk, pages, IoPriority::kDemand, done);
    });
    if (!status.ok()) return status;
    return content;
  }
  // Finds and reads; the status of what went wrong, OK if all bytes are right.
  absl::Status Check(uint32_t n) {
    std::optional<DiskChunk> chunk = tier_->Find(NumberedName(n));
    if (!chunk) return absl::NotFoundError("no such chunk");
    absl::StatusOr<Content> content = Read(*chunk);
    if (!content.ok()) return content.status();
    return *content == ContentOf(tier_->Geometry(*chunk), n)
               ? absl::OkStatus()
               : absl::InternalError("wrong bytes");
  }
  bool Contains(uint32_t n) { return tier_->Contains(NumberedName(n)); }
  absl::Status Remove(uint32_t n) {
    return Await([&](DiskTier::ReadDone done) {
      tier_->Remove(NumberedName(n), std::move(done));
    });
  }
  // Lets `seconds` pass.
  void Pass(double seconds) {
    now_ += absl::Seconds(seconds);
    tier_->Tick(now_);
  }
  // Waits till what goes on in the background has come about.
  template <typename F>
  bool Eventually(F f) {
    for (int i = 0; i < 20000; ++i) {
      if (f()) return true;
      std::this_thread::yield();
      (void)Await([this](DiskTier::ReadDone done) {
        executor_.Post([done] { done(absl::OkStatus()); });
      });
    }
    return false;
  }

  const std::shared_ptr<const DiskGeometry> geometry_ = OneLayer("a", 2, 4000);
  uint64_t scrub_ = 0;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  DiskTierOptions options_ = {.directory = "/disk",
                              .capacity_bytes = 0,
                              .staging_bytes = 256 << 10,
                              .catalog_cache_bytes = 256 << 10};
  sim::SegmentImages segments_;
  sim::FileImages files_image_;
  std::unique_ptr<sim::VirtualBlockIo> io_;
  std::unique_ptr<sim::VirtualFiles> files_;
  ThreadExecutor executor_;
  std::unique_ptr<DiskTier> tier_;
};

}  // namespace kvtier::tiers

#endif  // KVTIER_TESTS_TIERS_DISK_FIXTURE_H_
