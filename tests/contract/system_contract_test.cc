// Goal: every system keeps the promises of retrieval/system.h. Method: one suite, run on
// each name that System::Names() gives, over element types and group sizes.

#include <cmath>
#include <limits>
#include <ostream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "retrieval/system.h"
#include "tests/retrieval/fake_layer.h"

namespace kvtier::retrieval {
namespace {

constexpr size_t kChunks = 5;
constexpr uint32_t kTokens = kChunks * kChunkTokens;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
  std::string system;
  DType dtype;
  uint32_t group;
};
std::ostream& operator<<(std::ostream& os, const Case& c) {
  return os << c.system << "_" << DTypeName(c.dtype) << "_group" << c.group;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const std::string& system : System::Names()) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const uint32_t group : {1, 3, 4}) cases.push_back({system, dtype, group});
    }
  }
  return cases;
}

class SystemContract : public ::testing::TestWithParam<Case> {
 protected:
  bool takes_budget() const {
    return GetParam().system != "full" && GetParam().system != "window";
  }
  std::unique_ptr<const System> Make(uint32_t budget) const {
    auto system = System::Create(
        {.system = GetParam().system, .budget_tokens = takes_budget() ? budget : 0});
    EXPECT_TRUE(system.ok()) << system.status();
    return *std::move(system);
  }
  std::vector<float> QueryValues(uint32_t count, uint32_t seed = 3) const {
    return kernels::Gaussian(count * spec_.query_heads * spec_.key_dim, seed);
  }
  Selected Select(const System& system, const Query& query, LayerState* state) const {
    auto selected = system.Select(layer_.view(), query, state);
    EXPECT_TRUE(selected.ok()) << selected.status();
    return *std::move(selected);
  }

  const LayerSpec spec_ = SmallSpec(2, GetParam().group);
  const FakeLayer layer_{spec_, GetParam().dtype, kChunks, 1};
};

INSTANTIATE_TEST_SUITE_P(Systems, SystemContract, ::testing::ValuesIn(Cases()),
                         ::testing::PrintToStringParamName());

void ExpectSame(const Selected& a, const Selected& b) {
  EXPECT_EQ(a.unchanged, b.unchanged);
  EXPECT_EQ(a.everything, b.everything);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.rest_output, b.rest_output);
  EXPECT_EQ(a.rest_lse, b.rest_lse);
}

TEST_P(SystemContract, SelectsAscendingInRangeAndExactlyTheBudget) {
  for (const uint32_t budget : {1, 15, 16, 17, 100}) {
    const auto system = Make(budget);
    const auto state = system->NewState();
    for (const auto& [begin, end] :
         {std::pair{0u, kTokens}, {4u, 300u}, {63u, 65u}, {70u, 101u}, {64u, 128u}}) {
      for (const uint32_t queries : {1, 3}) {
        const std::vector<float> values = QueryValues(queries);
        const Selected s =
            Select(*system, MakeQuery(values, queries, begin, end), state.get());
        if (s.unchanged) continue;
        if (s.everything) {
          EXPECT_TRUE(system->exact() || budget >= end - begin);
          EXPECT_TRUE(s.tokens.empty());
          continue;
        }
        ASSERT_EQ(s.tokens.size(), spec_.kv_heads);
        for (const std::vector<uint32_t>& tokens : s.tokens) {
          EXPECT_EQ(tokens.size(), takes_budget() ? std::min(budget, end - begin) : 0);
          for (size_t i = 0; i < tokens.size(); ++i) {
            EXPECT_GE(tokens[i], begin);
            EXPECT_LT(tokens[i], end);
            if (i > 0) {
              EXPECT_LT(tokens[i - 1], tokens[i]);
            }
          }
        }
      }
    }
  }
}

TEST_P(SystemContract, RestHasItsShapeAndIsFinite) {
  const auto system = Make(32);
  const auto state = system->NewState();
  const std::vector<float> values = QueryValues(3);
  const Selected s = Select(*system, MakeQuery(values, 3, 4, 300), state.get());
  if (s.rest_lse.empty()) {
    EXPECT_TRUE(s.rest_output.empty());
    return;
  }
  EXPECT_EQ(s.rest_lse.size(), 3 * spec_.query_heads);
  EXPECT_EQ(s.rest_output.size(), 3 * spec_.query_heads * spec_.value_dim);
  for (const float v : s.rest_lse) EXPECT_TRUE(std::isfinite(v));
  for (const float v : s.rest_output) EXPECT_TRUE(std::isfinite(v));
}

TEST_P(SystemContract, SameCallSameAnswer) {
  const auto system = Make(32);
  const std::vector<float> values = QueryValues(1);
  const Query query = MakeQuery(values, 1, 4, 300);
  const auto a = system->NewState();
  const auto b = system->NewState();
  ExpectSame(Select(*system, query, a.get()), Select(*system, query, b.get()));
}

TEST_P(SystemContract, ACloneAnswersAsItsOriginal) {
  const auto system = Make(32);
  const auto state = system->NewState();
  const std::vector<float> first = QueryValues(1, 3), second = QueryValues(1, 4);
  Select(*system, MakeQuery(first, 1, 4, 300), state.get());
  const auto clone = state == nullptr ? nullptr : state->Clone();
  ExpectSame(Select(*system, MakeQuery(second, 1, 4, 300), state.get()),
             Select(*system, MakeQuery(second, 1, 4, 300), clone.get()));
}

TEST_P(SystemContract, ABudgetOfAllCandidatesIsEverything) {
  if (!takes_budget()) return;  // full and window have none to compare
  const std::vector<float> values = QueryValues(1);
  for (const uint32_t budget : {100, 101}) {
    const auto system = Make(budget);
    const auto state = system->NewState();
    const Selected s = Select(*system, MakeQuery(values, 1, 50, 150), state.get());
    EXPECT_TRUE(s.everything);
    EXPECT_TRUE(s.rest_lse.empty());
  }
}

TEST_P(SystemContract, AnEmptyRangeSelectsNothing) {
  const auto system = Make(32);
  const auto state = system->NewState();
  const std::vector<float> values = QueryValues(1);
  for (const uint32_t at : {0u, 70u, kTokens}) {
    const Selected s = Select(*system, MakeQuery(values, 1, at, at), state.get());
    EXPECT_FALSE(s.everything);
    EXPECT_EQ(s.tokens, std::vector<std::vector<uint32_t>>(spec_.kv_heads));
  }
}

TEST_P(SystemContract, RefusesWhatIsNoQuery) {
  const auto system = Make(32);
  const auto state = system->NewState();
  const auto code = [&](const std::vector<float>& values, uint32_t count, uint32_t begin,
                        uint32_t end) {
    return system
        ->Select(layer_.view(), MakeQuery(values, count, begin, end), state.get())
        .status()
        .code();
  };
  const std::vector<float> good = QueryValues(1);
  EXPECT_EQ(code(good, 1, 0, kTokens), absl::StatusCode::kOk);
  for (const float bad : {kNan, INFINITY, -INFINITY}) {
    std::vector<float> values = good;
    values.back() = bad;
    EXPECT_EQ(code(values, 1, 0, kTokens), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(code(good, 2, 0, kTokens), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({}, 0, 0, kTokens), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(good, 1, 10, 9), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(good, 1, 0, kTokens + 1), absl::StatusCode::kInvalidArgument);
}

TEST_P(SystemContract, BadRowsPoisonNothing) {
  std::vector<float> rows =
      kernels::Gaussian(spec_.kv_heads * kTokens * spec_.row_elements(), 9);
  for (size_t i = 0; i < rows.size(); i += 977) rows[i] = i % 2 == 0 ? kNan : INFINITY;
  const FakeLayer bad(spec_, GetParam().dtype, kChunks, rows);
  const auto system = Make(32);
  const auto state = system->NewState();
  const std::vector<float> values = QueryValues(1);
  const auto s = system->Select(bad.view(), MakeQuery(values, 1, 4, 300), state.get());
  ASSERT_TRUE(s.ok());
  if (takes_budget()) {
    for (const std::vector<uint32_t>& tokens : s->tokens) EXPECT_EQ(tokens.size(), 32);
  }
  for (const float v : s->rest_lse) EXPECT_TRUE(std::isfinite(v));
  for (const float v : s->rest_output) EXPECT_TRUE(std::isfinite(v));
}

TEST_P(SystemContract, DenseLayersReadEverything) {
  auto system = System::Create({.system = GetParam().system,
                                .budget_tokens = takes_budget() ? 32u : 0u,
                                .dense_layers = 6});
  ASSERT_TRUE(system.ok());
  const auto state = (*system)->NewState();
  const std::vector<float> values = QueryValues(1);
  EXPECT_TRUE(Select(**system, MakeQuery(values, 1, 4, 300), state.get()).everything);
}

TEST_P(SystemContract, SaysWhatItsBudgetMustBe) {
  const auto system = System::Create(
      {.system = GetParam().system, .budget_tokens = takes_budget() ? 0u : 5u});
  EXPECT_EQ(system.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(system.status().message()),
              ::testing::HasSubstr("set budget_tokens"));
}

TEST_P(SystemContract, RefusesAModelWithoutItsAbstract) {
  ModelSpec model;
  model.layers = {spec_};
  EXPECT_TRUE(Make(32)->CheckModel(model).ok());
  model.abstracts = {.sketch = false, .bounds = false};
  const std::string& name = GetParam().system;
  EXPECT_EQ(Make(32)->CheckModel(model).code(),
            name == "quest" || name == "kvtier" ? absl::StatusCode::kFailedPrecondition
                                                : absl::StatusCode::kOk);
}

TEST(SystemNames, AnUnknownOneIsAnsweredWithTheKnown) {
  const absl::Status status = System::Create({.system = "quset"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const std::string& name : System::Names()) {
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(name));
  }
}

}  // namespace
}  // namespace kvtier::retrieval
