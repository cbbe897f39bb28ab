// Goal: each system selects what its rule says, and an estimated rest completes a
// selection. Method: rules recomputed in double from the stored rows; cases in which the
// estimate must be exact.

#include "retrieval/pipeline.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/host/attention.h"
#include "tests/retrieval/fake_layer.h"

namespace kvtier::retrieval {
namespace {

std::unique_ptr<const System> Make(const std::string& name, uint32_t budget,
                                   std::optional<uint32_t> dense = std::nullopt) {
  return *System::Create(
      {.system = name, .budget_tokens = budget, .dense_layers = dense});
}

// The group's mean of softmax over [begin, end) of exact logits.
std::vector<double> ExactShares(const FakeLayer& layer, const std::vector<float>& queries,
                                uint32_t query_count, uint32_t kv_head, uint32_t begin,
                                uint32_t end) {
  const LayerSpec& spec = *layer.view().spec;
  std::vector<double> shares(end - begin);
  for (uint32_t i = 0; i < query_count; ++i) {
    for (uint32_t g = 0; g < spec.group_size(); ++g) {
      const float* q =
          queries.data() +
          (i * spec.query_heads + kv_head * spec.group_size() + g) * spec.key_dim;
      std::vector<double> e(end - begin);
      double max = -1e300;
      for (uint32_t t = begin; t < end; ++t) {
        e[t - begin] =
            spec.Scale() * kernels::Dot(q, layer.Row(kv_head, t).data(), spec.key_dim);
        max = std::max(max, e[t - begin]);
      }
      double sum = 0.0;
      for (double& x : e) sum += x = std::exp(x - max);
      for (size_t t = 0; t < e.size(); ++t) shares[t] += e[t] / sum;
    }
  }
  return shares;
}

TEST(Oracle, SelectsTheLargestSharesOfAttention) {
  const LayerSpec spec = SmallSpec(2, 3);
  const FakeLayer layer(spec, DType::kF32, 4, 1);
  for (const uint32_t queries : {1, 4}) {
    const std::vector<float> q =
        kernels::Gaussian(queries * spec.query_heads * spec.key_dim, 2);
    const Selected s =
        *Make("oracle", 20)->Select(layer.view(), MakeQuery(q, queries, 5, 250), nullptr);
    for (uint32_t h = 0; h < 2; ++h) {
      const std::vector<double> shares = ExactShares(layer, q, queries, h, 5, 250);
      std::vector<uint32_t> order(shares.size());
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(),
                [&](uint32_t a, uint32_t b) { return shares[a] > shares[b]; });
      std::set<uint32_t> want;
      for (int i = 0; i < 20; ++i) want.insert(order[i] + 5);
      EXPECT_EQ(std::set<uint32_t>(s.tokens[h].begin(), s.tokens[h].end()), want);
    }
    EXPECT_EQ(s.row_bytes, 2 * 4 * 64 * spec.key_dim * 4);
  }
}

// A thread for each piece of work.
class ThreadEach final : public Parallel {
 public:
  void For(size_t count, absl::FunctionRef<void(size_t)> work) const override {
    ++calls;
    std::vector<std::thread> threads;
    for (size_t i = 0; i < count; ++i) threads.emplace_back([work, i] { work(i); });
    for (std::thread& thread : threads) thread.join();
  }

  mutable int calls = 0;
};

TEST(Pipeline, ManyThreadsSelectWhatOneDoes) {
  const LayerSpec spec = SmallSpec(4, 2, 16, 16);
  const FakeLayer layer(spec, DType::kF16, 80, 5);
  for (const std::string& name : System::Names()) {
    for (const uint32_t queries : {1, 3}) {
      const std::vector<float> q =
          kernels::Gaussian(queries * spec.query_heads * spec.key_dim, 6);
      const Query query = MakeQuery(q, queries, 3, 80 * 64 - 5);
      const bool chooses = name != "full" && name != "window";
      const auto system = Make(name, chooses ? 200 : 0, 0);
      const auto state = system->NewState();
      const ThreadEach threads;
      const Selected alone = *system->Select(layer.view(), query, state.get());
      const Selected shared = *system->Select(layer.view(), query, state.get(), threads);
      EXPECT_EQ(shared.tokens, alone.tokens) << name;
      EXPECT_EQ(shared.rest_output, alone.rest_output) << name;
      EXPECT_EQ(shared.rest_lse, alone.rest_lse) << name;
      EXPECT_EQ(shared.abstract_bytes, alone.abstract_bytes) << name;
      // Spans are a sixteenth as many: not worth it for one query.
      const bool worth = chooses && (name != "quest");
      EXPECT_EQ(threads.calls, worth ? 1 : 0) << name;
    }
  }
}

TEST(Kvtier, SelectsMostOfTheAttentionThatTheOracleDoes) {
  const LayerSpec spec = SmallSpec(2, 3);
  const FakeLayer layer(spec, DType::kF16, 16, 1);
  const std::vector<float> q =
      kernels::Gaussian(spec.query_heads * spec.key_dim, 2, 2.0f);
  const Query query = MakeQuery(q, 1, 0, 1024);
  const Selected ours = *Make("kvtier", 64)->Select(layer.view(), query, nullptr);
  const Selected best = *Make("oracle", 64)->Select(layer.view(), query, nullptr);
  for (uint32_t h = 0; h < 2; ++h) {
    const std::vector<double> shares = ExactShares(layer, q, 1, h, 0, 1024);
    double our_mass = 0.0, best_mass = 0.0;
    for (const uint32_t t : ours.tokens[h]) our_mass += shares[t];
    for (const uint32_t t : best.tokens[h]) best_mass += shares[t];
    // Independent keys are the hardest case: no few tokens stand out.
    EXPECT_GT(our_mass, 0.8 * best_mass);
  }
}

TEST(Quest, FindsTheSpanOfAPlantedKeyAndCutsTheLast) {
  const LayerSpec spec = SmallSpec(1, 1);
  std::vector<float> rows = kernels::Gaussian(4 * 64 * spec.row_elements(), 1);
  const std::vector<float> q = kernels::Gaussian(spec.key_dim, 2);
  for (uint32_t i = 0; i < spec.key_dim; ++i) {
    rows[150 * spec.row_elements() + i] = 5.0f * q[i];
  }
  const FakeLayer layer(spec, DType::kF32, 4, rows);
  const Selected s =
      *Make("quest", 20)->Select(layer.view(), MakeQuery(q, 1, 0, 256), nullptr);
  std::set<uint32_t> spans;
  for (const uint32_t t : s.tokens[0]) spans.insert(t / 16);
  EXPECT_EQ(s.tokens[0].size(), 20);
  EXPECT_EQ(spans.size(), 2);
  EXPECT_TRUE(spans.contains(150 / 16));
  EXPECT_GE(std::count_if(s.tokens[0].begin(), s.tokens[0].end(),
                          [](uint32_t t) { return t / 16 == 150 / 16; }),
            4);
}

TEST(DenseLayers, AreTheFirstTwoByDefaultWhereTheSystemSaysSo) {
  const LayerSpec spec = SmallSpec(1, 1);
  const FakeLayer layer(spec, DType::kF32, 2, 1);
  const std::vector<float> q = kernels::Gaussian(spec.key_dim, 2);
  const Query query = MakeQuery(q, 1, 0, 128);
  for (const uint32_t index : {0, 1, 2}) {
    LayerView view = layer.view();
    view.layer = LayerIndex(index);
    EXPECT_EQ(Make("kvtier", 8)->Select(view, query, nullptr)->everything, index < 2);
    EXPECT_EQ(Make("quest", 8)->Select(view, query, nullptr)->everything, index < 2);
    EXPECT_FALSE(Make("oracle", 8)->Select(view, query, nullptr)->everything);
    EXPECT_FALSE(Make("kvtier", 8, 0)->Select(view, query, nullptr)->everything);
  }
}

// Attention over the selected rows merged with the rest must be attention over all:
// exactly so where the sketch and the means lose nothing, which is where all keys of a
// page are equal, and all its values.
TEST(Rest, CompletesASelectionExactlyWherePagesAreUniform) {
  LayerSpec spec = SmallSpec(2, 3, 64, 20);
  constexpr uint32_t kChunks = 6;
  for (const float softcap : {0.0f, 3.0f}) {
    spec.softcap = softcap;
    std::vector<float> rows;
    for (uint32_t p = 0; p < spec.kv_heads * kChunks; ++p) {
      const std::vector<float> row = kernels::Gaussian(spec.row_elements(), 100 + p);
      for (int t = 0; t < 64; ++t) rows.insert(rows.end(), row.begin(), row.end());
    }
    const FakeLayer layer(spec, DType::kF16, kChunks, rows);
    for (const uint32_t queries : {1, 2}) {
      const std::vector<float> q =
          kernels::Gaussian(queries * spec.query_heads * spec.key_dim, 2);
      const uint32_t begin = 10, end = 370;
      const Selected s =
          *Make("kvtier", 40)
               ->Select(layer.view(), MakeQuery(q, queries, begin, end), nullptr);
      const kernels::AttentionShape shape = {.key_dim = spec.key_dim,
                                             .value_dim = spec.value_dim,
                                             .scale = spec.Scale(),
                                             .softcap = softcap};
      for (uint32_t i = 0; i < queries * spec.query_heads; ++i) {
        const uint32_t h = i % spec.query_heads / spec.group_size();
        std::vector<float> all, some;
        for (uint32_t t = begin; t < end; ++t) {
          const std::vector<float> row = layer.Row(h, t);
          all.insert(all.end(), row.begin(), row.end());
          if (std::binary_search(s.tokens[h].begin(), s.tokens[h].end(), t)) {
            some.insert(some.end(), row.begin(), row.end());
          }
        }
        std::vector<float> want(spec.value_dim), got(spec.value_dim);
        const auto attend = [&](const std::vector<float>& part, float* out) {
          return kernels::PartialAttention(
              shape, DType::kF32, reinterpret_cast<const std::byte*>(part.data()),
              part.size() / spec.row_elements(), q.data() + i * spec.key_dim, out);
        };
        const float want_lse = attend(all, want.data());
        float lse = attend(some, got.data());
        kernels::MergePartial(s.rest_output.data() + i * spec.value_dim, s.rest_lse[i],
                              spec.value_dim, got.data(), &lse);
        EXPECT_NEAR(lse, want_lse, 2e-3);
        for (uint32_t v = 0; v < spec.value_dim; ++v) EXPECT_NEAR(got[v], want[v], 4e-3);
      }
    }
  }
}

TEST(Rest, BringsTheOutputNearerToFullAttention) {
  const LayerSpec spec = SmallSpec(1, 1);
  const FakeLayer layer(spec, DType::kF32, 8, 1);
  const std::vector<float> q = kernels::Gaussian(spec.key_dim, 2);
  const Selected s =
      *Make("kvtier", 32)->Select(layer.view(), MakeQuery(q, 1, 0, 512), nullptr);
  const kernels::AttentionShape shape = {
      .key_dim = spec.key_dim, .value_dim = spec.value_dim, .scale = spec.Scale()};
  std::vector<float> all, some;
  for (uint32_t t = 0; t < 512; ++t) {
    const std::vector<float> row = layer.Row(0, t);
    all.insert(all.end(), row.begin(), row.end());
  }
  for (const uint32_t t : s.tokens[0]) {
    const std::vector<float> row = layer.Row(0, t);
    some.insert(some.end(), row.begin(), row.end());
  }
  std::vector<float> want(spec.value_dim), got(spec.value_dim);
  kernels::PartialAttention(shape, DType::kF32,
                            reinterpret_cast<const std::byte*>(all.data()), 512, q.data(),
                            want.data());
  float lse = kernels::PartialAttention(shape, DType::kF32,
                                        reinterpret_cast<const std::byte*>(some.data()),
                                        32, q.data(), got.data());
  const auto distance = [&] {
    double sum = 0.0;
    for (uint32_t i = 0; i < spec.value_dim; ++i) sum += std::pow(got[i] - want[i], 2);
    return sum;
  };
  const double dropped = distance();
  kernels::MergePartial(s.rest_output.data(), s.rest_lse[0], spec.value_dim, got.data(),
                        &lse);
  EXPECT_LT(distance(), 0.5 * dropped);
}

TEST(Declarations, SenselessCombinationsAreRefusedWithTheReason) {
  Declaration mixed = QuestSystem();
  mixed.score = SketchScore();
  EXPECT_THAT(std::string(mixed.Validate().message()),
              ::testing::HasSubstr("its units have"));
  Declaration rest = QuestSystem();
  rest.rest = PageMeans();
  EXPECT_THAT(std::string(rest.Validate().message()), ::testing::HasSubstr("per token"));
  Declaration hollow = QuestSystem();
  hollow.score = nullptr;
  EXPECT_EQ(hollow.Validate().code(), absl::StatusCode::kInvalidArgument);
  hollow.trigger = nullptr;
  EXPECT_EQ(hollow.Validate().code(), absl::StatusCode::kInvalidArgument);
}

TEST(QueryStages, StartWhereTheySay) {
  Query query;
  query.query_count = 5;
  EXPECT_EQ(LastToken()->FirstAsking(query), 4);
  EXPECT_EQ(WholeWindow()->FirstAsking(query), 0);
}

}  // namespace
}  // namespace kvtier::retrieval
