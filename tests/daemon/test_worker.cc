// A worker that a test kills: it stores one and a half chunks of TestTokens(4096) and
// says so, then goes on appending one layer, piece by piece, until it is killed.
//
//   kvtier_test_worker SOCKET

#include <cstdio>

#include "tests/daemon/test_model.h"

int main(int argc, char** argv) {
  using namespace kvtier;
  if (argc != 2) return 2;
  auto client = client::Client::Connect({.socket = argv[1]});
  if (!client.ok()) return 1;
  auto opened = testing::OpenTestSequence(**client, testing::TestTokens(4096));
  if (!opened.ok() || !testing::AppendAll(**client, opened->sequence, 0, 96).ok()) {
    return 1;
  }
  std::printf("appending\n");
  std::fflush(stdout);
  for (uint32_t begin = 96; begin + 16 <= 4096; begin += 16) {
    if (!testing::AppendLayer(**client, opened->sequence, 0, begin, 16).ok()) return 1;
  }
  std::printf("done\n");
  std::fflush(stdout);
  std::getchar();
  return 0;
}
