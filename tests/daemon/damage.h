// Spoils rows in a disk tier's directory, whose segments have them as they were appended.

#ifndef KVTIER_TESTS_DAEMON_DAMAGE_H_
#define KVTIER_TESTS_DAEMON_DAMAGE_H_

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "tiers/disk/block_io.h"

namespace kvtier::testing {

// Changes a byte wherever a row is in the segments of `directory`; returns how often it
// was there. The row must not cross a unit: it has a power of two of bytes.
inline int DamageRow(const std::string& directory, const std::string& row) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().filename().string().rfind("segment-", 0) != 0) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    std::string unit(tiers::kIoUnit, '\0');
    for (uint64_t at = 0;
         file.seekg(static_cast<std::streamoff>(at)) &&
         file.read(unit.data(), static_cast<std::streamsize>(unit.size()));
         at += tiers::kIoUnit) {
      const size_t in_unit = unit.find(row);
      if (in_unit == std::string::npos) continue;
      file.seekp(static_cast<std::streamoff>(at + in_unit));
      file.put(static_cast<char>(row[0] ^ 1));
      ++found;
    }
  }
  return found;
}

}  // namespace kvtier::testing

#endif  // KVTIER_TESTS_DAEMON_DAMAGE_H_
