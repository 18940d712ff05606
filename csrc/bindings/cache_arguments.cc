// SPDX-License-Identifier: Apache-2.0
#include "bindings/cache_arguments.h"

#include "bindings/quantized.h"

namespace vllm {

using torch::headeronly::ScalarType;

CacheFormat ParseFormat(const char* op, const std::string& kv_cache_dtype) {
  if (kv_cache_dtype == "auto" || kv_cache_dtype == "float16" || kv_cache_dtype == "bfloat16")
    return CacheFormat::kSame;
  if (kv_cache_dtype == "fp8" || kv_cache_dtype == "fp8_e4m3") return CacheFormat::kE4m3;
  if (kv_cache_dtype == "fp8_e5m2") return CacheFormat::kE5m2;
  FailOp(op, "kv_cache_dtype is '" + kv_cache_dtype +
                 "', expected auto, float16, bfloat16, fp8, fp8_e4m3 or fp8_e5m2");
}

CacheFormat CheckFormat(const char* op, const std::string& kv_cache_dtype, const Argument& cache,
                        const Argument& tokens) {
  const CacheFormat format = ParseFormat(op, kv_cache_dtype);
  tokens.CheckOnDevice();
  cache.CheckOnDevice();
  if (format == CacheFormat::kSame) {
    const size_t size = tokens.tensor().element_size();
    if (size != 1 && size != 2 && size != 4)
      tokens.Fail("has elements of " + std::to_string(size) + " bytes", "1, 2 or 4");
    cache.CheckSameDType(tokens);
    if (kv_cache_dtype == "float16") cache.CheckDType(ScalarType::Half);
    if (kv_cache_dtype == "bfloat16") cache.CheckDType(ScalarType::BFloat16);
    return format;
  }
  tokens.CheckFloating();
  CheckCodes(cache, format);
  return format;
}

void CheckCodes(const Argument& codes, CacheFormat format) {
  if (codes.scalar_type() == ScalarType::Byte) return;
  if (format == CacheFormat::kE5m2) {
    codes.CheckDType(ScalarType::Float8_e5m2);
  } else {
    CheckOwnE4M3(codes).CheckDType(GetE4M3());
  }
}

const float* CheckScales(const Argument& scale, int64_t heads, int64_t* stride) {
  scale.CheckOnDevice().CheckDType(ScalarType::Float);
  const int64_t count = scale.tensor().numel();
  if (count == 1) {
    *stride = 0;
  } else if (heads > 1 && scale.shape().size() == 1 && count == heads) {
    *stride = scale.strides()[0];
  } else {
    scale.FailShape(heads > 1 ? "[1] or [" + std::to_string(heads) + "], one a head"
                              : "one element");
  }
  return static_cast<const float*>(scale.tensor().data_ptr());
}

Slots CheckSlots(const Argument& slot_mapping, int64_t tokens, int64_t blocks, int64_t block_size) {
  slot_mapping.CheckOnDevice().CheckDType(ScalarType::Long);
  const Extents shape = slot_mapping.shape();
  if (shape.size() != 1 || shape[0] > tokens) {
    slot_mapping.FailShape("one dimension of at most " + std::to_string(tokens) +
                           " elements, the number of tokens");
  }
  const int64_t end = blocks * block_size;
  const Slots slots{static_cast<const int64_t*>(slot_mapping.tensor().data_ptr()),
                    slot_mapping.strides()[0], shape[0], end};
  if constexpr (kOnGpu) return slots;
  for (int64_t token = 0; token < slots.tokens; ++token) {
    const int64_t slot = slots.data[token * slots.stride];
    if (slot < -1 || slot >= end) {
      slot_mapping.Fail("holds " + std::to_string(slot) + " for token " + std::to_string(token),
                        "-1 or 0 <= slot < " + std::to_string(end) + ", the slots of the cache");
    }
  }
  return slots;
}

}  // namespace vllm
