// SPDX-License-Identifier: Apache-2.0
// The two products of latent attention, whose keys and values are rows of a cache. Compiled once
// for each target.
//
// Rows are of the type A that the products multiply: float32, or bfloat16 on targets with words.
#if defined(VLLM_ATTENTION_LATENT_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_ATTENTION_LATENT_PRODUCTS_INL_H_
#undef VLLM_ATTENTION_LATENT_PRODUCTS_INL_H_
#else
#define VLLM_ATTENTION_LATENT_PRODUCTS_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"

#include "attention/multiply-inl.h"
#include "core/simd-inl.h"
#include "core/words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// The elements of A in a vector.
template <typename A>
HWY_INLINE size_t GetLanes() {
  return hn::Lanes(F32()) * (sizeof(float) / sizeof(A));
}

// Loads the first n elements, or a whole vector if n is as large; the others are zero. The vector
// is one of float32 or of words.
template <typename A>
HWY_INLINE VF32 LoadRow(const A* HWY_RESTRICT from, size_t n) {
  const hn::Repartition<A, F32> d;
  return hn::BitCast(F32(), n >= GetLanes<A>() ? hn::LoadU(d, from) : hn::LoadN(d, from, n));
}

// sum + a * b for vectors of A.
template <typename A>
HWY_INLINE VF32 AddProducts(VF32 a, VF32 b, VF32 sum) {
#if VLLM_WORDS
  if constexpr (kInWords<A>)
    return AddBFloat16Words(hn::BitCast(U32(), a), hn::BitCast(U32(), b), sum);
#endif
  return hn::MulAdd(a, b, sum);
}

// The keys whose scores are computed together.
inline constexpr size_t kScoreKeys = 4;

// Adds up each of four vectors, and writes the four results.
HWY_INLINE void StoreSumsOfFour(VF32 v0, VF32 v1, VF32 v2, VF32 v3, float* HWY_RESTRICT to) {
  const F32 d;
  const hn::Repartition<double, F32> d64;
  // In each block of four lanes: sums of the lanes 0 and 2 and of 1 and 3, of v0 and v1 in turn.
  const auto v01 =
      hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, v0, v1), hn::InterleaveUpper(d, v0, v1)));
  const auto v23 =
      hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, v2, v3), hn::InterleaveUpper(d, v2, v3)));
  const VF32 sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, v01, v23)),
                            hn::BitCast(d, hn::InterleaveUpper(d64, v01, v23)));
  const hn::FixedTag<float, 4> d4;
  HWY_ALIGN float blocks[hn::MaxLanes(F32())];
  hn::Store(sums, d, blocks);
  auto sum = hn::Load(d4, blocks);
  for (size_t i = 4; i < hn::Lanes(d); i += 4) sum = hn::Add(sum, hn::Load(d4, blocks + i));
  hn::StoreU(sum, d4, to);
}

// scores[h, k] = sum_e query[h, e] * rows[k][e] for kHeads heads and four keys. Prefetches the four
// rows of `next` if kPrefetch.
template <size_t kHeads, bool kPrefetch, typename A>
HWY_INLINE void MultiplyRowsByKeys(size_t n, const A* HWY_RESTRICT query, size_t query_stride,
                                   const A* const* HWY_RESTRICT rows,
                                   const A* const* HWY_RESTRICT next, float* HWY_RESTRICT scores,
                                   size_t score_stride) {
  const VF32 zero = hn::Zero(F32());
  VF32 s00 = zero, s01 = zero, s02 = zero, s03 = zero, s10 = zero, s11 = zero, s12 = zero,
       s13 = zero;
  VF32 s20 = zero, s21 = zero, s22 = zero, s23 = zero, s30 = zero, s31 = zero, s32 = zero,
       s33 = zero;
  const A *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  const size_t lanes = GetLanes<A>();
  const auto step = [&](size_t e, size_t count) VLLM_INLINE_ATTR {
    if constexpr (kPrefetch) {
      Prefetch(next[0] + e);
      Prefetch(next[1] + e);
      Prefetch(next[2] + e);
      Prefetch(next[3] + e);
    }
    const VF32 k0 = LoadRow(r0 + e, count), k1 = LoadRow(r1 + e, count);
    const VF32 k2 = LoadRow(r2 + e, count), k3 = LoadRow(r3 + e, count);
    const auto head = [&](size_t h, VF32& s0, VF32& s1, VF32& s2, VF32& s3) VLLM_INLINE_ATTR {
      const VF32 q = LoadRow(query + h * query_stride + e, count);
      s0 = AddProducts<A>(q, k0, s0);
      s1 = AddProducts<A>(q, k1, s1);
      s2 = AddProducts<A>(q, k2, s2);
      s3 = AddProducts<A>(q, k3, s3);
    };
    head(0, s00, s01, s02, s03);
    if constexpr (kHeads > 1) head(1, s10, s11, s12, s13);
    if constexpr (kHeads > 2) head(2, s20, s21, s22, s23);
    if constexpr (kHeads > 3) head(3, s30, s31, s32, s33);
  };
  size_t e = 0;
  for (; e + lanes <= n; e += lanes) step(e, lanes);
  if (e < n) step(e, n - e);
  StoreSumsOfFour(s00, s01, s02, s03, scores);
  if constexpr (kHeads > 1) StoreSumsOfFour(s10, s11, s12, s13, scores + score_stride);
  if constexpr (kHeads > 2) StoreSumsOfFour(s20, s21, s22, s23, scores + 2 * score_stride);
  if constexpr (kHeads > 3) StoreSumsOfFour(s30, s31, s32, s33, scores + 3 * score_stride);
}

// The same for any number of heads and keys: `next` are the keys that are read next. Rows after the
// last key, up to a multiple of four, are those of any key.
template <typename A>
HWY_NOINLINE void ComputeLatentScores(size_t heads, size_t keys, size_t n, const A* query,
                                      size_t query_stride, const A* const* rows,
                                      const A* const* next, float* scores, size_t score_stride) {
  // AVX-512 has 32 registers for 16 sums, AVX2 16 for 8.
  constexpr size_t kMost = HWY_TARGET <= HWY_AVX3 || !HWY_ARCH_X86 ? 4 : 2;
  for (size_t key = 0; key < keys; key += kScoreKeys) {
    for (size_t head = 0; head < heads;) {
      const auto multiply = [&](auto count, auto prefetch) HWY_ATTR {
        MultiplyRowsByKeys<decltype(count)::value, decltype(prefetch)::value>(
            n, query + head * query_stride, query_stride, rows + key, next + key,
            scores + head * score_stride + key, score_stride);
        head += decltype(count)::value;
      };
      if (heads - head < kMost) {
        multiply(std::integral_constant<size_t, 1>(), std::false_type());
      } else if (head == 0) {
        multiply(std::integral_constant<size_t, kMost>(), std::true_type());
      } else {
        multiply(std::integral_constant<size_t, kMost>(), std::false_type());
      }
    }
  }
}

// Loads up to n columns of a row of values, two vectors, or the words of two rows: first those of
// the lower halves of all blocks of 128 bits. `second` may be null: a row of zeros.
template <typename A>
HWY_INLINE void LoadValues(const A* HWY_RESTRICT row, [[maybe_unused]] const A* HWY_RESTRICT second,
                           size_t n, VF32& v0, VF32& v1) {
  const size_t lanes = hn::Lanes(F32());
#if VLLM_WORDS
  if constexpr (kInWords<A>) {
    const hn::Repartition<uint16_t, F32> d;
    const auto x = hn::BitCast(d, LoadRow(row, n));
    const auto y = second == nullptr ? hn::Zero(d) : hn::BitCast(d, LoadRow(second, n));
    v0 = hn::BitCast(F32(), hn::InterleaveLower(d, x, y));
    v1 = hn::BitCast(F32(), hn::InterleaveUpper(d, x, y));
    return;
  }
#endif
  v0 = LoadRow(row, n);
  v1 = n > lanes ? LoadRow(row + lanes, n - lanes) : hn::Zero(F32());
}

// Brings sums of words into the order of columns.
template <typename A>
HWY_INLINE void OrderSums([[maybe_unused]] VF32& c0, [[maybe_unused]] VF32& c1) {
#if VLLM_WORDS
  if constexpr (kInWords<A>) {
    alignas(64) static constexpr uint32_t kFirst[16] = {0, 1, 2, 3, 16, 17, 18, 19,
                                                        4, 5, 6, 7, 20, 21, 22, 23};
    alignas(64) static constexpr uint32_t kSecond[16] = {8,  9,  10, 11, 24, 25, 26, 27,
                                                         12, 13, 14, 15, 28, 29, 30, 31};
    const F32 d;
    const VF32 lower = c0, upper = c1;
    c0 = hn::TwoTablesLookupLanes(d, lower, upper, hn::SetTableIndices(d, kFirst));
    c1 = hn::TwoTablesLookupLanes(d, lower, upper, hn::SetTableIndices(d, kSecond));
  }
#endif
}

// sums[h, j] += sum_k weights[h, k] * rows[k][j] for columns [0, n) of up to kBlockRows heads. A
// row of sums has whole vectors.
template <typename A>
HWY_NOINLINE void AddLatentValues(size_t heads, size_t keys, size_t n, const A* weights,
                                  size_t weight_stride, const A* const* rows, float* sums,
                                  size_t sum_stride) {
  const size_t lanes = hn::Lanes(F32());
  for (size_t column = 0; column < n; column += 2 * lanes) {
    const size_t left = n - column;
    const auto multiply = [&](auto full) HWY_ATTR {
      const size_t count = decltype(full)::value ? 2 * lanes : left;
      MultiplyRows<Columns::kApart>(
          heads, keys, weights, weight_stride,
          [&](size_t k, auto whole, VF32& v0, VF32& v1) VLLM_INLINE_ATTR {
            const A* second = nullptr;
            if constexpr (decltype(whole)::value && kInWords<A>) second = rows[k + 1] + column;
            LoadValues(rows[k] + column, second, count, v0, v1);
          },
          [&](size_t h, VF32 c0, VF32 c1) VLLM_INLINE_ATTR {
            OrderSums<A>(c0, c1);
            float* to = sums + h * sum_stride + column;
            Store(hn::Add(c0, Load(to)), to);
            if (count > lanes) Store(hn::Add(c1, Load(to + lanes)), to + lanes);
          });
    };
    if (left >= 2 * lanes) {
      multiply(std::true_type());
    } else {
      multiply(std::false_type());
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_ATTENTION_LATENT_PRODUCTS_INL_H_
