// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "moe/experts.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "moe/experts_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "core/with_type-inl.h"
#include "gemm/product-inl.h"

#ifndef VLLM_MOE_EXPERTS_STAGE_
#define VLLM_MOE_EXPERTS_STAGE_
namespace vllm {

// The arguments of one matrix product of the experts.
struct ExpertStage {
  DType dtype = DType::kFloat32;
  const void* weights = nullptr;  // packed, one expert after the other
  const void* bias = nullptr;
  int64_t depth = 0;
  int64_t columns = 0;
  std::vector<int32_t> active;  // experts that have a route
  const int64_t* starts =
      nullptr;  // of each expert's routes among the sorted ones, and the end of the last
  const int32_t* tokens = nullptr;  // of each sorted route, null where A has a row for each
  const Rows* input = nullptr;      // A, one row for each token
  const float* rows = nullptr;      // or A, one row for each route
  float* out = nullptr;             // [routes, columns]
};

}  // namespace vllm
#endif  // VLLM_MOE_EXPERTS_STAGE_

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Computes columns [first, last) of the product for one expert and its routes.
template <typename A, typename T, typename Row>
HWY_NOINLINE void MultiplyExpert(const ExpertStage& stage, int64_t expert, size_t first,
                                 size_t last, const Row& row, PanelMemory& memory) {
  const size_t columns = static_cast<size_t>(stage.columns);
  const int64_t start = stage.starts[expert];
  Panels panels = GetExpertPanels(stage.dtype, stage.depth, stage.columns);
  panels.data = static_cast<const T*>(stage.weights) + expert * stage.depth * stage.columns;
  const T* bias =
      stage.bias == nullptr ? nullptr : static_cast<const T*>(stage.bias) + expert * stage.columns;
  float* out = stage.out + start * stage.columns;
  MultiplyByPanels<A, T>(
      static_cast<size_t>(stage.starts[expert + 1] - start),
      [&](size_t i) HWY_ATTR { return row(start + static_cast<int64_t>(i)); }, panels, first, last,
      memory,
      [&](size_t i, size_t count, size_t column, size_t width, const float* c, size_t c_stride)
          HWY_ATTR {
            for (size_t r = 0; r < count; ++r) {
              AddBias(c + r * c_stride, bias == nullptr ? nullptr : bias + column,
                      out + (i + r) * columns + column, width);
            }
          });
}

// Computes items [begin, end): panel by panel, with the active experts one after the other in each.
// A thread's part therefore has some of each expert, no matter how many tokens that expert has.
template <typename T>
void MultiplyStage(const ExpertStage& stage, int64_t begin, int64_t end) {
  PanelMemory memory;
  const int64_t active = static_cast<int64_t>(stage.active.size());
  for (int64_t e = 0; e < active; ++e) {
    const int64_t first = (begin - e + active - 1) / active * Panels::kPanel;
    const int64_t last = std::min((end - e + active - 1) / active * Panels::kPanel, stage.columns);
    if (first >= last) continue;
    const int64_t expert = stage.active[static_cast<size_t>(e)];
    if (stage.input != nullptr) {
      MultiplyExpert<T, T>(
          stage, expert, static_cast<size_t>(first), static_cast<size_t>(last),
          [&](int64_t route) HWY_ATTR { return stage.input->Row<T>(stage.tokens[route]); }, memory);
    } else {
      MultiplyExpert<float, T>(
          stage, expert, static_cast<size_t>(first), static_cast<size_t>(last),
          [&](int64_t route) HWY_ATTR { return stage.rows + route * stage.depth; }, memory);
    }
  }
}

void MultiplyStageItems(const ExpertStage& stage, int64_t begin, int64_t end) {
  WithType(stage.dtype,
           [&](auto element) HWY_ATTR { MultiplyStage<decltype(element)>(stage, begin, end); });
}

// Computes elements [begin, end) of the output, numbered across rows: the weighted sums of the
// routes' rows. positions has the row of each choice of each token, -1 for none.
template <typename T>
void AddWeighted(const Rows& out, const float* rows, const int64_t* positions, int64_t topk,
                 int64_t first_token, const RouteWeights& weights, int64_t begin, int64_t end) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  while (begin < end) {
    const int64_t token = begin / out.width;
    const int64_t column = begin % out.width;
    const size_t n = static_cast<size_t>(std::min(end - begin, out.width - column));
    T* to = out.Row<T>(first_token + token) + column;
    for (size_t i = 0; i < n; i += lanes) {
      const size_t part = HWY_MIN(lanes, n - i);
      VF32 sum = hn::Zero(d);
      for (int64_t k = 0; k < topk; ++k) {
        const int64_t position = positions[token * topk + k];
        if (position < 0) continue;
        const float* from = rows + position * out.width + column + i;
        sum = hn::MulAdd(hn::Set(d, weights.Get(first_token + token, k)), hn::LoadN(d, from, part),
                         sum);
      }
      if (part == lanes) {
        Store(sum, to + i);
      } else {
        StoreTail(sum, to + i, part);
      }
    }
    begin += static_cast<int64_t>(n);
  }
}

void AddWeightedRange(const Rows& out, const float* rows, const int64_t* positions, int64_t topk,
                      int64_t first_token, const RouteWeights& weights, int64_t begin,
                      int64_t end) {
  WithType(out.dtype, [&](auto element) HWY_ATTR {
    AddWeighted<decltype(element)>(out, rows, positions, topk, first_token, weights, begin, end);
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"
#include "hwy/aligned_allocator.h"

namespace vllm {

HWY_EXPORT(MultiplyStageItems);
HWY_EXPORT(AddWeightedRange);

namespace {

// The memory for the results between the products, in float32 elements: 64 MiB. More tokens are
// processed in parts, each of which reads the weights again.
constexpr int64_t kMostElements = int64_t{1} << 24;
// The minimum size of a part: for fewer tokens, reading the weights takes longer than computing.
constexpr int64_t kLeastTokens = 256;

Rows MakeFloatRows(float* data, int64_t count, int64_t width) {
  Rows rows;
  rows.data = data;
  rows.width = width;
  rows.count = count;
  rows.dims = 1;
  rows.sizes[0] = count;
  rows.strides[0] = width;
  return rows;
}

void RunStage(const ExpertStage& stage) {
  auto& function = VLLM_CPU_DISPATCH(MultiplyStageItems);
  const int64_t panels = (stage.columns + Panels::kPanel - 1) / Panels::kPanel;
  const int64_t items = panels * static_cast<int64_t>(stage.active.size());
  ParallelFor(items, Panels::kPanel * stage.depth,
              [&](int64_t begin, int64_t end) { function(stage, begin, end); });
}

// Computes tokens [first, first + tokens).
void RunExperts(const Rows& out, const Rows& input, const Experts& experts, int64_t topk,
                const int32_t* routes, const RouteWeights& weights, int64_t first, int64_t tokens) {
  const int64_t all = tokens * topk;
  std::vector<int64_t> starts(static_cast<size_t>(experts.count) + 1, 0);
  for (int64_t route = 0; route < all; ++route) {
    if (routes[route] >= 0) ++starts[static_cast<size_t>(routes[route])];
  }
  ExpertStage stage;
  int64_t taken = 0;
  for (int64_t expert = 0; expert <= experts.count; ++expert) {
    int64_t& entry = starts[static_cast<size_t>(expert)];
    const int64_t count = entry;
    if (count > 0) stage.active.push_back(static_cast<int32_t>(expert));
    entry = taken;
    taken += count;
  }
  std::vector<int32_t> sorted(static_cast<size_t>(taken));   // tokens
  std::vector<int64_t> positions(static_cast<size_t>(all));  // among them, of each route
  std::vector<int64_t> next = starts;
  for (int64_t route = 0; route < all; ++route) {
    const int32_t expert = routes[route];
    const int64_t position = expert < 0 ? -1 : next[static_cast<size_t>(expert)]++;
    positions[static_cast<size_t>(route)] = position;
    if (position >= 0)
      sorted[static_cast<size_t>(position)] = static_cast<int32_t>(first + route / topk);
  }

  const auto both = hwy::AllocateAligned<float>(static_cast<size_t>(taken * 2 * experts.inner + 1));
  const auto inner = hwy::AllocateAligned<float>(static_cast<size_t>(taken * experts.inner + 1));
  const auto result = hwy::AllocateAligned<float>(static_cast<size_t>(taken * experts.hidden + 1));
  stage.dtype = experts.dtype;
  stage.starts = starts.data();
  stage.weights = experts.w13;
  stage.bias = experts.bias13;
  stage.depth = experts.hidden;
  stage.columns = 2 * experts.inner;
  stage.input = &input;
  stage.tokens = sorted.data();
  stage.out = both.get();
  RunStage(stage);
  ActivateAndMul(experts.gate, MakeFloatRows(inner.get(), taken, experts.inner),
                 MakeFloatRows(both.get(), taken, 2 * experts.inner));
  stage.weights = experts.w2;
  stage.bias = experts.bias2;
  stage.depth = experts.inner;
  stage.columns = experts.hidden;
  stage.input = nullptr;
  stage.rows = inner.get();
  stage.out = result.get();
  RunStage(stage);

  auto& function = VLLM_CPU_DISPATCH(AddWeightedRange);
  ParallelFor(tokens * out.width, topk, [&](int64_t begin, int64_t end) {
    function(out, result.get(), positions.data(), topk, first, weights, begin, end);
  });
}

}  // namespace

void ApplyExperts(const Rows& out, const Rows& input, const Experts& experts, int64_t topk,
                  const std::vector<int32_t>& routes, const RouteWeights& weights) {
  const int64_t each = std::max<int64_t>(1, topk * (3 * experts.inner + experts.hidden));
  const int64_t most = std::max(kLeastTokens, kMostElements / each);
  for (int64_t first = 0; first < out.count; first += most) {
    RunExperts(out, input, experts, topk, routes.data() + first * topk, weights, first,
               std::min(most, out.count - first));
  }
}

}  // namespace vllm
#endif  // HWY_ONCE
