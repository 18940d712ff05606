// SPDX-License-Identifier: Apache-2.0
#include "bindings/attention_arguments.h"

#include <stdexcept>

#include "attention/isa.h"

namespace vllm {

using torch::headeronly::ScalarType;

void CheckIsa(const char* op, const char* name, const std::string& isa) {
  if (!IsAttentionIsa(isa))
    FailOp(op, std::string(name) + " is '" + isa +
                   "', expected amx, amx_fp8, vec, vec16, neon, vxe, rvv or vsx");
}

CacheDType CheckCacheDType(const char* op, const std::string& name, DType tokens) {
  if (name == "fp8" || name == "fp8_e4m3") return CacheDType::kFloat8E4M3;
  if (name == "fp8_e5m2") return CacheDType::kFloat8E5M2;
  if (name != "auto")
    FailOp(op, "kv_cache_dtype is '" + name + "', expected auto, fp8, fp8_e4m3 or fp8_e5m2");
  switch (tokens) {
    case DType::kBFloat16:
      return CacheDType::kBFloat16;
    case DType::kFloat16:
      return CacheDType::kFloat16;
    default:
      return CacheDType::kFloat32;
  }
}

CachePages CheckPages(const Argument& argument, CacheDType dtype, const Argument& tokens) {
  argument.CheckOnDevice();
  const bool fp8 = dtype == CacheDType::kFloat8E4M3 || dtype == CacheDType::kFloat8E5M2;
  if (fp8) {
    const ScalarType type = argument.tensor().scalar_type();
    const ScalarType own =
        dtype == CacheDType::kFloat8E4M3 ? ScalarType::Float8_e4m3fn : ScalarType::Float8_e5m2;
    if (type != own) argument.CheckDType(ScalarType::Byte);
  } else {
    argument.CheckSameDType(tokens);
  }
  const Extents shape = argument.shape();
  if (shape.size() != 4 || shape[3] != tokens.shape()[2]) {
    argument.FailShape("[num_blocks, num_kv_heads, block_size, " +
                       std::to_string(tokens.shape()[2]) + "] with the head size of the tokens");
  }
  if (shape[2] < 1 || shape[2] % CachePages::kPanel != 0) {
    argument.FailShape("a block size (third dimension) that is a multiple of " +
                       std::to_string(CachePages::kPanel));
  }
  const Extents strides = argument.strides();
  if ((shape[3] > 1 && strides[3] != 1) || (shape[2] > 1 && strides[2] != shape[3])) {
    argument.FailStrides("contiguous last two dimensions");
  }
  CachePages pages;
  pages.data = argument.tensor().data_ptr();
  pages.dtype = dtype;
  pages.blocks = shape[0];
  pages.heads = shape[1];
  pages.block_size = shape[2];
  pages.head_size = shape[3];
  pages.block_stride = strides[0];
  pages.head_stride = strides[1];
  return pages;
}

Ints CheckInts(const Argument& argument, int64_t count, std::string_view why) {
  argument.CheckOnDevice().CheckDType(ScalarType::Int).CheckMinLength(count, why);
  return {argument.Data<const int32_t>(), argument.strides()[0]};
}

void CheckBlockTable(const Argument& table, int64_t count) {
  table.CheckOnDevice().CheckDType(ScalarType::Int);
  if (table.shape().size() != 2 || table.shape()[0] < count) {
    table.FailShape("[num_reqs, max_blocks] with at least " + std::to_string(count) + " rows");
  }
  table.CheckLastDimensionContiguous();
}

void CheckBlocks(const Argument& table, int64_t request, int64_t begin, int64_t end,
                 int64_t block_size, int64_t blocks) {
  if (begin >= end) return;
  const int64_t needed = (end + block_size - 1) / block_size;
  const std::string where = "request " + std::to_string(request);
  if (needed > table.shape()[1]) {
    table.FailShape("at least " + std::to_string(needed) + " blocks a row: " + where + " has " +
                    std::to_string(end) + " tokens in blocks of " + std::to_string(block_size));
  }
  const int32_t* row =
      static_cast<const int32_t*>(table.tensor().data_ptr()) + request * table.strides()[0];
  for (int64_t i = begin / block_size; i < needed; ++i) {
    if (row[i] < 0 || row[i] >= blocks) {
      table.Fail(
          "holds " + std::to_string(row[i]) + " for block " + std::to_string(i) + " of " + where,
          "0 <= block < " + std::to_string(blocks) + " (num_blocks of the cache)");
    }
  }
}

}  // namespace vllm
