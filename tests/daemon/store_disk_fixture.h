// A store over real files in a directory of the test's own, and ways to spoil them.

#ifndef KVTIER_TESTS_DAEMON_STORE_DISK_FIXTURE_H_
#define KVTIER_TESTS_DAEMON_STORE_DISK_FIXTURE_H_

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "tests/daemon/store_fixture.h"
#include "tiers/chunk_name.h"
#include "tiers/disk/extent_layout.h"

namespace kvtier::testing {

class StoreDisk : public StoreTest {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/kvtier-disk-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    Start(OnDisk());
  }
  void TearDown() override {
    session_.reset();
    store_.reset();
    std::filesystem::remove_all(directory_);
  }

  StoreOptions OnDisk(uint64_t host_capacity = uint64_t{64} << 20) {
    StoreOptions options = Small(host_capacity);
    options.disk_directory = directory_;
    options.disk_capacity_bytes = uint64_t{256} << 20;
    return options;
  }
  TierStats Disk() const { return store_->Tiers().at(1); }

  void Seal(SequenceId sequence, uint64_t tokens) {
    auto sealed = session_->Seal(sequence, Durability::kDurable);
    ASSERT_TRUE(sealed.ok()) << sealed.status();
    EXPECT_EQ(sealed->sealed_tokens, tokens);
  }

  // Flips a byte of one page of the n-th chunk of a sequence of Ids(_, salt), in the
  // newest extent that has it. Pages count from the first layer's first kv head.
  void Damage(uint32_t salt, uint32_t chunk, uint32_t page) {
    tiers::ChunkName name = tiers::RootName("test", digest_, "");
    const std::vector<uint32_t> ids = Ids((chunk + 1) * kChunkTokens, salt);
    for (uint32_t i = 0; i <= chunk; ++i) {
      name = tiers::ChildName(
          name, absl::MakeSpan(ids).subspan(i * kChunkTokens, kChunkTokens), "");
    }
    std::string newest;  // path
    uint64_t begin = 0;
    uint64_t generation = 0;
    VisitUnits([&](const std::string& path, uint64_t at, std::string* unit) {
      const auto header = tiers::DecodeExtentHeader(
          {reinterpret_cast<const std::byte*>(unit->data()), unit->size()});
      if (!header.ok() || header->name != name || header->generation < generation) return;
      newest = path;
      begin = at;
      generation = header->generation;
    });
    ASSERT_NE(newest, "") << "the chunk isn't on disk";
    const uint64_t page_bytes = kChunkTokens * 2 * model_.layers[0].key_dim * 4;
    const uint64_t pages = model_.layers.size() * model_.layers[0].kv_heads;
    const uint64_t at =
        begin + space_->Models().front().disk_bytes - (pages - page) * page_bytes + 17;
    std::fstream file(newest, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const auto byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
    ASSERT_TRUE(file.good());
  }

  // Calls with path, offset and bytes of every 4 KiB of every segment.
  void VisitUnits(
      absl::FunctionRef<void(const std::string&, uint64_t, std::string*)> visit) {
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      if (entry.path().filename().string().rfind("segment-", 0) != 0) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      std::string unit(4096, '\0');
      for (uint64_t at = 0; file.read(unit.data(), 4096); at += 4096) {
        visit(entry.path().string(), at, &unit);
      }
    }
  }

  std::string directory_;
};

}  // namespace kvtier::testing

#endif  // KVTIER_TESTS_DAEMON_STORE_DISK_FIXTURE_H_
