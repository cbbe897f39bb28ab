// Goal: every row of an append arrives once, where it belongs, in messages below the
// limit, however it lay in the caller's memory.
// Method: cut and gather; put the messages together again and compare.

#include "client/cpp/append_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace kvtier::client {
namespace {

constexpr RowShape kShape = {.kv_heads = 2, .key_bytes = 8, .value_bytes = 4};
constexpr uint32_t kTokens = 1000;

std::string Row(char side, uint32_t head, uint32_t token, size_t bytes) {
  std::string row = side + std::to_string(head * 10000 + token);
  row.resize(bytes, '.');
  return row;
}

std::string Dense(char side, size_t bytes) {
  std::string rows;
  for (uint32_t head = 0; head < 2; ++head) {
    for (uint32_t token = 0; token < kTokens; ++token) {
      rows += Row(side, head, token, bytes);
    }
  }
  return rows;
}

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

AppendRows Rows(const std::string& key, const std::string& value) {
  AppendRows rows;
  rows.sequence = SequenceId(7);
  rows.layer = LayerIndex(1);
  rows.start = TokenIndex(100);
  rows.token_count = kTokens;
  rows.key.buffer = Bytes(key);
  rows.value.buffer = Bytes(value);
  return rows;
}

// What arrived of one side: (head, token) -> row.
struct Arrived {
  int messages = 0;
  uint64_t next_token = 100;
  std::map<std::pair<uint32_t, uint64_t>, std::string> keys;
  absl::Status status;
};

Arrived SendAll(const AppendRows& rows, uint64_t limit, bool shape_known = true) {
  Arrived arrived;
  arrived.status = SendAppend(
      3, limit, {}, {rows},
      [&](const AppendRows&) { return shape_known ? &kShape : nullptr; },
      [&](const v1::AppendRequest& request) {
        ++arrived.messages;
        EXPECT_LE(request.ByteSizeLong(), limit);
        EXPECT_EQ(request.session_id(), 3u);
        for (const v1::AppendEntry& entry : request.entries()) {
          EXPECT_EQ(entry.start_token(), arrived.next_token);
          arrived.next_token += entry.token_count();
          for (uint32_t head = 0; head < 2; ++head) {
            for (uint32_t i = 0; i < entry.token_count(); ++i) {
              arrived.keys[{head, entry.start_token() + i}] =
                  entry.inline_().key().substr((head * entry.token_count() + i) * 8, 8);
            }
          }
        }
        return absl::OkStatus();
      });
  return arrived;
}

void ExpectAllThere(const Arrived& arrived) {
  EXPECT_TRUE(arrived.status.ok()) << arrived.status;
  ASSERT_EQ(arrived.keys.size(), 2 * kTokens);
  for (const auto& [where, row] : arrived.keys) {
    EXPECT_EQ(row, Row('k', where.first, where.second - 100, 8));
  }
}

TEST(SendAppend, SendsWhatFitsInOneMessage) {
  const std::string key = Dense('k', 8), value = Dense('v', 4);
  const Arrived arrived = SendAll(Rows(key, value), 1 << 20);
  ExpectAllThere(arrived);
  EXPECT_EQ(arrived.messages, 1);
}

TEST(SendAppend, CutsByTokensWhatDoesNot) {
  const std::string key = Dense('k', 8), value = Dense('v', 4);
  const Arrived arrived = SendAll(Rows(key, value), 4096);
  ExpectAllThere(arrived);
  EXPECT_GE(arrived.messages, 6);
}

TEST(SendAppend, GathersStridesAndBlocks) {
  // [token][head][dim], then the same in blocks of 16 tokens, last block first.
  std::string by_token;
  for (uint32_t token = 0; token < kTokens; ++token) {
    for (uint32_t head = 0; head < 2; ++head) by_token += Row('k', head, token, 8);
  }
  const std::string value = Dense('v', 4);
  AppendRows rows = Rows(by_token, value);
  rows.key.head_stride_bytes = 8;
  rows.key.token_stride_bytes = 16;
  ExpectAllThere(SendAll(rows, 4096));

  std::string blocks;
  std::vector<uint64_t> offsets((kTokens + 15) / 16);
  for (size_t block = offsets.size(); block-- > 0;) {
    offsets[block] = blocks.size();
    blocks += by_token.substr(block * 256, 256);
    blocks.resize(offsets[block] + 256);
  }
  rows.key.buffer = Bytes(blocks);
  rows.key.block_tokens = 16;
  rows.key.block_offset_bytes = offsets;
  ExpectAllThere(SendAll(rows, 4096));
  rows.key.block_offset_bytes = absl::MakeSpan(offsets).first(10);
  EXPECT_EQ(SendAll(rows, 4096).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(SendAppend, RefusesRowsOutsideTheBuffer) {
  const std::string key = Dense('k', 8), value = Dense('v', 4);
  AppendRows rows = Rows(key, value);
  rows.key.buffer = rows.key.buffer.first(rows.key.buffer.size() - 1);
  EXPECT_EQ(SendAll(rows, 4096).status.code(), absl::StatusCode::kInvalidArgument);
  rows = Rows(key, value);
  rows.value.offset_bytes = 1 << 20;
  EXPECT_EQ(SendAll(rows, 4096).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(SendAppend, SaysWhenItNeedsTheShapeOrALargerMessage) {
  const std::string key = Dense('k', 8), value = Dense('v', 4);
  EXPECT_EQ(SendAll(Rows(key, value), 4096, /*shape_known=*/false).status.code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(SendAll(Rows(key, value), 260).status.code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(SendAppend, CutsTokenIds) {
  const std::vector<uint32_t> ids(5000, 1u << 31);
  std::vector<uint32_t> arrived;
  absl::Status status = SendAppend(
      3, 8192, {{.sequence = SequenceId(7), .start = TokenIndex(0), .token_ids = ids}},
      {}, [](const AppendRows&) { return nullptr; },
      [&](const v1::AppendRequest& request) {
        EXPECT_LE(request.ByteSizeLong(), 8192u);
        for (const v1::TokenRun& run : request.tokens()) {
          EXPECT_EQ(run.start_token(), arrived.size());
          arrived.insert(arrived.end(), run.token_ids().begin(), run.token_ids().end());
        }
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(arrived, ids);
}

TEST(SendAppend, StopsAtTheFirstError) {
  const std::string key = Dense('k', 8), value = Dense('v', 4);
  int messages = 0;
  absl::Status status = SendAppend(
      3, 4096, {}, {Rows(key, value)}, [](const AppendRows&) { return &kShape; },
      [&](const v1::AppendRequest&) {
        ++messages;
        return absl::ResourceExhaustedError("full");
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(messages, 1);
}

}  // namespace
}  // namespace kvtier::client
