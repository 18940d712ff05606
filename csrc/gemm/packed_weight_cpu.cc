// SPDX-License-Identifier: Apache-2.0
#include "core/cpu_targets.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gemm/packed_weight.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gemm/packed_weight_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "core/simd-inl.h"
#include "core/with_type-inl.h"
#include "gemm/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// A panel is a whole number of vectors.
constexpr size_t kPackedColumns = static_cast<size_t>(PackedWeight::kPanel);

// The sums of one vector of columns: `odd` has those of every second row, unless the CPU adds
// pairs.
struct PairSums {
  VF32 even;
  VF32 odd;
};

// Adds the products of one step.
HWY_INLINE void AddPackedStep(const hwy::bfloat16_t* HWY_RESTRICT a, size_t step,
                              const hwy::bfloat16_t* HWY_RESTRICT b, PairSums& sums) {
  const F32 d;
  const hn::Repartition<hwy::bfloat16_t, F32> d16;
  const hn::RebindToUnsigned<F32> du;
  uint32_t pair;
  std::memcpy(&pair, a + 2 * step, sizeof(pair));
  sums.even = hn::ReorderWidenMulAccumulate(d, hn::BitCast(d16, hn::Set(du, pair)),
                                            hn::LoadU(d16, b), sums.even, sums.odd);
}

template <typename T>
HWY_INLINE void AddPackedStep(const T* HWY_RESTRICT a, size_t step, const T* HWY_RESTRICT b,
                              PairSums& sums) {
  const F32 d;
  if constexpr (sizeof(T) == sizeof(float)) {
    sums.even = hn::MulAdd(hn::Set(d, a[step]), hn::LoadU(d, b), sums.even);
  } else {
    const VF32 column = Promote<T>(hn::LoadU(hn::Rebind<T, F32>(), b));
    sums.even = hn::MulAdd(hn::Set(d, hwy::ConvertScalarTo<float>(a[step])), column, sums.even);
  }
}

// c[r * c_stride + n] = sum over `steps` of a[r] * the panel's vector at `b`, for kRows rows and
// kVectors vectors of columns, the beginnings of which are given.
template <size_t kRows, size_t kVectors, typename T>
HWY_INLINE void MultiplyPackedVectors(const T* HWY_RESTRICT a, size_t a_stride, const T* const* b,
                                      size_t steps, float* HWY_RESTRICT c, size_t c_stride) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  constexpr size_t kStep = static_cast<size_t>(PackedWeight::Width(
      sizeof(T) == 2 && hwy::IsSame<T, hwy::bfloat16_t>() ? DType::kBFloat16 : DType::kFloat32));
  const VF32 zero = hn::Zero(d);
  static_assert(kRows <= 3 && kVectors <= 4, "the sums are variables");
  PairSums s00{zero, zero}, s01 = s00, s02 = s00, s03 = s00;
  PairSums s10 = s00, s11 = s00, s20 = s00, s21 = s00;
  for (size_t step = 0; step < steps; ++step) {
    AddPackedStep(a, step, b[0] + step * kStep, s00);
    if constexpr (kVectors > 1) AddPackedStep(a, step, b[1] + step * kStep, s01);
    if constexpr (kVectors > 2) AddPackedStep(a, step, b[2] + step * kStep, s02);
    if constexpr (kVectors > 3) AddPackedStep(a, step, b[3] + step * kStep, s03);
    if constexpr (kRows > 1) AddPackedStep(a + a_stride, step, b[0] + step * kStep, s10);
    if constexpr (kRows > 1 && kVectors > 1)
      AddPackedStep(a + a_stride, step, b[1] + step * kStep, s11);
    if constexpr (kRows > 2) AddPackedStep(a + 2 * a_stride, step, b[0] + step * kStep, s20);
    if constexpr (kRows > 2 && kVectors > 1)
      AddPackedStep(a + 2 * a_stride, step, b[1] + step * kStep, s21);
  }
  const auto store = [&](size_t row, size_t vector, const PairSums& sums) HWY_ATTR {
    VF32 sum = sums.even;
    if constexpr (hwy::IsSame<T, hwy::bfloat16_t>())
      sum = hn::RearrangeToOddPlusEven(sums.even, sums.odd);
    hn::StoreU(sum, d, c + row * c_stride + vector * lanes);
  };
  store(0, 0, s00);
  if constexpr (kVectors > 1) store(0, 1, s01);
  if constexpr (kVectors > 2) store(0, 2, s02);
  if constexpr (kVectors > 3) store(0, 3, s03);
  if constexpr (kRows > 1) store(1, 0, s10);
  if constexpr (kRows > 1 && kVectors > 1) store(1, 1, s11);
  if constexpr (kRows > 2) store(2, 0, s20);
  if constexpr (kRows > 2 && kVectors > 1) store(2, 1, s21);
}

// c = A * panels [begin, end), for kRows rows.
template <size_t kRows, typename T>
HWY_NOINLINE void MultiplyPackedRows(const T* a, size_t a_stride, const PackedWeight& weight,
                                     int64_t begin, int64_t end, float* c, size_t c_stride) {
  const size_t lanes = hn::Lanes(F32()), steps = static_cast<size_t>(weight.steps);
  const size_t width = static_cast<size_t>(PackedWeight::Width(weight.dtype));
  HWY_DASSERT(lanes <= kPackedColumns);
  const size_t in_panel = kPackedColumns / lanes;
  const size_t count = static_cast<size_t>(end - begin) * in_panel;
  const T* data = static_cast<const T*>(weight.data) + begin * weight.PanelElements();
  const auto place = [&](size_t vector) {
    return data + vector / in_panel * static_cast<size_t>(weight.PanelElements()) +
           vector % in_panel * (width / in_panel);
  };
  constexpr size_t kVectors = kRows == 1 ? 4 : 2;
  size_t vector = 0;
  for (; vector + kVectors <= count; vector += kVectors) {
    const T* at[kVectors];
    for (size_t i = 0; i < kVectors; ++i) at[i] = place(vector + i);
    MultiplyPackedVectors<kRows, kVectors>(a, a_stride, at, steps, c + vector * lanes, c_stride);
  }
  for (; vector < count; ++vector) {
    const T* at = place(vector);
    MultiplyPackedVectors<kRows, 1>(a, a_stride, &at, steps, c + vector * lanes, c_stride);
  }
}

// c = A * panels [begin, end).
void MultiplyPackedPanels(const void* a, int64_t a_stride, int64_t rows, const PackedWeight& weight,
                          int64_t begin, int64_t end, float* c, int64_t c_stride) {
  WithType(weight.dtype, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    const size_t stride = static_cast<size_t>(a_stride), to = static_cast<size_t>(c_stride);
    int64_t row = 0;
    const auto at = [&] { return static_cast<const T*>(a) + row * a_stride; };
    for (; row + 3 <= rows; row += 3)
      MultiplyPackedRows<3>(at(), stride, weight, begin, end, c + row * c_stride, to);
    if (rows - row == 2)
      MultiplyPackedRows<2>(at(), stride, weight, begin, end, c + row * c_stride, to);
    if (rows - row == 1)
      MultiplyPackedRows<1>(at(), stride, weight, begin, end, c + row * c_stride, to);
  });
}

// Writes `columns` sums, plus a bias that may be null, to columns [first, …) of a row.
void FinishPackedRow(const Rows& out, int64_t row, int64_t first, int64_t columns, const float* c,
                     const float* bias) {
  WithType(out.dtype, [&](auto element) HWY_ATTR {
    AddBias(c, bias, out.Row<decltype(element)>(row) + first, static_cast<size_t>(columns));
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/cpu_dispatch.h"
#include "core/cpu_parallel.h"
#include "gemm/amx.h"

namespace vllm {
namespace {

HWY_EXPORT(MultiplyPackedPanels);
HWY_EXPORT(FinishPackedRow);

// The rows that are multiplied at once, and the panels: the sums of both are 64 KiB.
constexpr int64_t kBlockRows = kAmxRows;
constexpr int64_t kBlockPanels = 32;
// Up to so many rows, vectors are as fast as tiles. On a Xeon with AMX (family 6, model 207), a
// weight of 1 MiB took 28 us with one or two rows in either way, and 53 us with vectors and 30 us
// with tiles for four.
constexpr int64_t kFewRows = 2;

// Rows of A of the depth that the packed weight has: `from` itself, or copies that end in zeros.
class PaddedRows {
 public:
  PaddedRows(const Rows& a, const PackedWeight& weight)
      : a_(a),
        size_(GetSize(a.dtype)),
        depth_(weight.dtype == DType::kBFloat16 ? 2 * weight.steps : weight.steps),
        direct_(depth_ == a.width && a.dims == 1 && a.strides[0] >= 0) {}

  // Provides rows [row, row + count). They are valid until the next call.
  void Move(int64_t row, int64_t count) {
    if (direct_) {
      data_ = a_.Row<unsigned char>(0) + a_.Offset(row) * size_;
      stride_ = a_.strides[0];
      return;
    }
    copies_.assign(static_cast<size_t>(count * depth_ * size_), 0);
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(copies_.data() + i * depth_ * size_,
                  static_cast<const unsigned char*>(a_.data) + a_.Offset(row + i) * size_,
                  static_cast<size_t>(a_.width * size_));
    }
    data_ = copies_.data();
    stride_ = depth_;
  }
  const void* data() const { return data_; }
  int64_t stride() const { return stride_; }

 private:
  const Rows& a_;
  int64_t size_;
  int64_t depth_;
  bool direct_;
  std::vector<unsigned char> copies_;
  const void* data_ = nullptr;
  int64_t stride_ = 0;
};

// Items [begin, end): the panels for the first block of rows, then those for the second, and so on.
void MultiplyItems(const Rows& out, const Rows& a, const PackedWeight& weight, const float* bias,
                   bool amx, int64_t begin, int64_t end) {
  constexpr int64_t kPanel = PackedWeight::kPanel;
  auto& multiply = VLLM_CPU_DISPATCH(MultiplyPackedPanels);
  auto& finish = VLLM_CPU_DISPATCH(FinishPackedRow);
  std::vector<float> sums(static_cast<size_t>(std::min(kBlockRows, a.count) *
                                              std::min(kBlockPanels, weight.panels) * kPanel));
  PaddedRows rows(a, weight);
  while (begin < end) {
    const int64_t row = begin / weight.panels * kBlockRows, panel = begin % weight.panels;
    const int64_t panels = std::min({weight.panels - panel, end - begin, kBlockPanels});
    const int64_t count = std::min(kBlockRows, a.count - row), stride = panels * kPanel;
    rows.Move(row, count);
    if (amx) {
      const AmxTiles tiles(count);
      tiles.Multiply(static_cast<const uint16_t*>(rows.data()), rows.stride(),
                     static_cast<const uint16_t*>(weight.data) + panel * weight.PanelElements(),
                     weight.PanelElements(), panels, weight.steps / PackedWeight::kTileSteps,
                     sums.data(), stride);
    } else {
      multiply(rows.data(), rows.stride(), count, weight, panel, panel + panels, sums.data(),
               stride);
    }
    const int64_t first = panel * kPanel;
    for (int64_t i = 0; i < count; ++i) {
      finish(out, row + i, first, std::min(stride, out.width - first), sums.data() + i * stride,
             bias == nullptr ? nullptr : bias + first);
    }
    begin += panels;
  }
}

template <typename T>
void PackPanel(const T* from, int64_t column_stride, int64_t row_stride, int64_t columns,
               int64_t depth, int64_t steps, int64_t rows, T* to) {
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t column = 0; column < PackedWeight::kPanel; ++column) {
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t k = step * rows + i;
        *to++ = column < columns && k < depth ? from[column * column_stride + k * row_stride] : T{};
      }
    }
  }
}

}  // namespace

void PackWeight(const PackedWeight& packed, const void* from, int64_t column_stride,
                int64_t row_stride, int64_t columns, int64_t depth, void* to) {
  const int64_t rows = PackedWeight::Width(packed.dtype) / PackedWeight::kPanel;
  // Bits are copied, of a type of the same size.
  const auto pack = [&](auto element) {
    using T = decltype(element);
    ParallelFor(packed.panels, packed.PanelElements(), [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t first = panel * PackedWeight::kPanel;
        PackPanel(static_cast<const T*>(from) + first * column_stride, column_stride, row_stride,
                  columns - first, depth, packed.steps, rows,
                  static_cast<T*>(to) + panel * packed.PanelElements());
      }
    });
  };
  GetSize(packed.dtype) == 2 ? pack(uint16_t{}) : pack(uint32_t{});
}

void MultiplyPacked(const Rows& out, const Rows& a, const PackedWeight& weight, const float* bias) {
  const bool amx = weight.dtype == DType::kBFloat16 && a.count > kFewRows && CanUseAmx();
  const int64_t blocks = (a.count + kBlockRows - 1) / kBlockRows;
  // A thread does as much with this many products as with an element elsewhere.
  const int64_t products = amx ? 256 : 16;
  const int64_t elements = std::min(kBlockRows, a.count) * weight.PanelElements() / products;
  ParallelFor(blocks * weight.panels, elements, [&](int64_t begin, int64_t end) {
    MultiplyItems(out, a, weight, bias, amx, begin, end);
  });
}

}  // namespace vllm
#endif  // HWY_ONCE
