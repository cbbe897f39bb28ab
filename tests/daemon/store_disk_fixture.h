// A store over real files in a directory of the test's own, and ways to spoil them.

#ifndef KVTIER_TESTS_DAEMON_STORE_DISK_FIXTURE_H_
#define KVTIER_TESTS_DAEMON_STORE_DISK_FIXTURE_H_

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "tests/daemon/damage.h"
#include "tests/daemon/store_fixture.h"

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
    options.disk_scrub_bytes = 0;  // who finds what is bad is up to the test
    return options;
  }
  TierStats Disk() const { return store_->Tiers().at(1); }

  void Seal(SequenceId sequence, uint64_t tokens) {
    auto sealed = session_->Seal(sequence, Durability::kDurable);
    ASSERT_TRUE(sealed.ok()) << sealed.status();
    EXPECT_EQ(sealed->sealed_tokens, tokens);
  }

  // Spoils one page of the n-th chunk of a sequence that Filled made. Pages count from
  // the first layer's first kv head.
  void Damage(uint32_t salt, uint32_t chunk, uint32_t page) {
    const uint32_t heads = model_.layers[0].kv_heads;
    const uint64_t token = uint64_t{chunk} * kChunkTokens + 3;
    EXPECT_EQ(
        DamageRow(directory_, StoredRow(model_, salt, page / heads, page % heads, token)),
        1);
  }

  std::string directory_;
};

}  // namespace kvtier::testing

#endif  // KVTIER_TESTS_DAEMON_STORE_DISK_FIXTURE_H_
