// Rows of text in columns as wide as their widest cell; numbers to the right.
//
// Thread safety: none; one owner.

#ifndef KVTIER_CLIENT_CLI_TABLE_H_
#define KVTIER_CLIENT_CLI_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace kvtier::cli {

class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}

  // As many cells as the header has.
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  // Every line ends with a newline. Control characters are shown as '?': what a worker
  // calls itself must not move the operator's cursor.
  std::string Text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// "1.5 GiB", "640 KiB", "12 B".
std::string HumanBytes(uint64_t bytes);
// "3 d 4 h", "12 min", "5 s".
std::string HumanSeconds(uint64_t seconds);

}  // namespace kvtier::cli

#endif  // KVTIER_CLIENT_CLI_TABLE_H_
