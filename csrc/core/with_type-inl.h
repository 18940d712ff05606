// SPDX-License-Identifier: Apache-2.0
// Converts an element type that is known at run time to one that is known at compile time. Compiled
// once for each target.
#if defined(VLLM_CORE_WITH_TYPE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLLM_CORE_WITH_TYPE_INL_H_
#undef VLLM_CORE_WITH_TYPE_INL_H_
#else
#define VLLM_CORE_WITH_TYPE_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

#include "core/dtype.h"
#include "core/fp8.h"

HWY_BEFORE_NAMESPACE();
namespace vllm {
namespace HWY_NAMESPACE {

// Returns function(T()) for the element type T of `dtype`: float, hwy::bfloat16_t or
// hwy::float16_t. A lambda that is passed here needs HWY_ATTR, as all lambdas that use vectors do.
template <class F>
HWY_INLINE auto WithType(DType dtype, const F& function) {
  switch (dtype) {
    case DType::kBFloat16:
      return function(hwy::bfloat16_t());
    case DType::kFloat16:
      return function(hwy::float16_t());
    case DType::kFloat32:
      break;
  }
  return function(float());
}

// Returns function(Q()) for the quantised type Q of `type`: E4M3, E5M2 or int8_t.
template <class F>
HWY_INLINE auto WithCode(QType type, const F& function) {
  switch (type) {
    case QType::kE5M2:
      return function(E5M2());
    case QType::kInt8:
      return function(int8_t());
    case QType::kE4M3:
      break;
  }
  return function(E4M3());
}

// The same for callers that never quantise to int8: no code is generated for it.
template <class F>
HWY_INLINE auto WithFp8Code(QType type, const F& function) {
  return type == QType::kE4M3 ? function(E4M3()) : function(E5M2());
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace vllm
HWY_AFTER_NAMESPACE();

#endif  // VLLM_CORE_WITH_TYPE_INL_H_
