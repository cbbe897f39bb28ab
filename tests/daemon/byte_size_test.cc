// Goal: sizes mean what they say, and what isn't a size is refused.
// Method: a table of texts each way.

#include "daemon/byte_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvtier::daemon {
namespace {

TEST(ByteSize, ReadsBinaryUnits) {
  EXPECT_EQ(ParseByteSize("4096").value(), 4096u);
  EXPECT_EQ(ParseByteSize("12B").value(), 12u);
  EXPECT_EQ(ParseByteSize("3KiB").value(), 3072u);
  EXPECT_EQ(ParseByteSize("512 MiB").value(), 512u << 20);
  EXPECT_EQ(ParseByteSize("4GiB").value(), uint64_t{4} << 30);
  EXPECT_EQ(ParseByteSize("2TiB").value(), uint64_t{2} << 40);
}

TEST(ByteSize, RefusesWhatIsNone) {
  for (const char* text : {"", "GiB", "4GB", "4gib", "-1", "1.5GiB", "4  GiB", "4GiB x",
                           "99999999999999999999", "9999999TiB"}) {
    EXPECT_EQ(ParseByteSize(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(ByteSize, WritesTheLargestUnitThatDivides) {
  EXPECT_EQ(FormatByteSize(uint64_t{4} << 30), "4GiB");
  EXPECT_EQ(FormatByteSize(1536), "1536B");
  EXPECT_EQ(FormatByteSize(0), "0B");
}

}  // namespace
}  // namespace kvtier::daemon
