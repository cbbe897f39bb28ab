#include "daemon/byte_size.h"

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace kvtier::daemon {
namespace {

struct Unit {
  const char* name;
  uint64_t bytes;
};
constexpr Unit kUnits[] = {{"TiB", uint64_t{1} << 40},
                           {"GiB", uint64_t{1} << 30},
                           {"MiB", uint64_t{1} << 20},
                           {"KiB", uint64_t{1} << 10},
                           {"B", 1}};

}  // namespace

absl::StatusOr<uint64_t> ParseByteSize(const std::string& text) {
  const size_t digits = text.find_first_not_of("0123456789");
  const std::string number = text.substr(0, digits);
  std::string suffix = digits == std::string::npos ? "B" : text.substr(digits);
  if (!suffix.empty() && suffix[0] == ' ') suffix.erase(0, 1);

  uint64_t value = 0;
  uint64_t unit_bytes = 0;
  for (const Unit& unit : kUnits) {
    if (suffix == unit.name) unit_bytes = unit.bytes;
  }
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  if (unit_bytes == 0 || !absl::SimpleAtoi(number, &value) || value > kMax / unit_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is no size: write a whole number and B, KiB, MiB, GiB or TiB"));
  }
  return value * unit_bytes;
}

std::string FormatByteSize(uint64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes >= unit.bytes && bytes % unit.bytes == 0) {
      return absl::StrCat(bytes / unit.bytes, unit.name);
    }
  }
  return "0B";
}

}  // namespace kvtier::daemon
