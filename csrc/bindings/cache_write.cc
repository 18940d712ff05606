// SPDX-License-Identifier: Apache-2.0
// Ops that write tokens into a paged cache.
#include "bindings/cache_arguments.h"
#include "bindings/library.h"

namespace vllm {
namespace {

TokenVectors ToVectors(const Argument& tokens) {
  const bool heads = tokens.shape().size() == 3;
  TokenVectors vectors;
  vectors.data = tokens.tensor().data_ptr();
  vectors.dtype = tokens.dtype();
  vectors.element_size = tokens.tensor().element_size();
  vectors.heads = heads ? tokens.shape()[1] : 1;
  vectors.width = tokens.shape().back();
  vectors.token_stride = tokens.strides()[0];
  vectors.head_stride = heads ? tokens.strides()[1] : vectors.width;
  return vectors;
}

// Checks key and value: both [tokens, heads, head_size].
void CheckTokens(const Argument& key, const Argument& value) {
  key.CheckRank(3, "[num_tokens, num_heads, head_size]");
  key.CheckLastDimensionContiguous();
  value.CheckSameDType(key)
      .CheckShape(key.shape(), "the shape of key")
      .CheckLastDimensionContiguous();
}

void ReshapeAndCacheOp(Tensor key_tensor, Tensor value_tensor, Tensor key_cache_tensor,
                       Tensor value_cache_tensor, Tensor slot_mapping_tensor,
                       StringArgument kv_cache_dtype, Tensor k_scale_tensor, Tensor v_scale_tensor,
                       bool interleaved_v) {
  const char* op = "reshape_and_cache";
  const Argument key(op, "key", key_tensor), value(op, "value", value_tensor);
  const Argument key_cache(op, "key_cache", key_cache_tensor),
      value_cache(op, "value_cache", value_cache_tensor);
  const CacheFormat format = CheckFormat(op, kv_cache_dtype.value, key_cache, key);
  CheckFormat(op, kv_cache_dtype.value, value_cache, value);
  CheckTokens(key, value);
  CacheWrite writes[2];
  writes[0].from = ToVectors(key);
  writes[1].from = ToVectors(value);
  const int64_t heads = writes[0].from.heads, width = writes[0].from.width;

  const Extents shape = key_cache.shape();
  const int64_t x = shape.size() == 5 ? shape[4] : 0;
  if (x == 0 || shape[1] != heads || shape[2] * x != width) {
    key_cache.FailShape("[num_blocks, " + std::to_string(heads) + ", " + std::to_string(width) +
                        " / x, block_size, x] for key");
  }
  key_cache.CheckLastDimensionContiguous().CheckWritable();
  const int64_t blocks = shape[0], block_size = shape[3];
  if (interleaved_v) {
    if (block_size % x != 0) key_cache.FailShape("a block_size that x divides, for interleaved_v");
    value_cache.CheckShape({blocks, heads, block_size / x, width, x},
                           "[num_blocks, num_heads, block_size / x, head_size, x]");
  } else {
    value_cache.CheckShape({blocks, heads, width, block_size},
                           "[num_blocks, num_heads, head_size, block_size]");
  }
  value_cache.CheckLastDimensionContiguous().CheckWritable();

  const Extents k = key_cache.strides(), v = value_cache.strides();
  PagedCache& keys = writes[0].to;
  keys = {
      key_cache_tensor.data_ptr(), format, block_size, k[0], k[1], block_size, 0, k[3], x, k[2]};
  PagedCache& values = writes[1].to;
  values = {
      value_cache_tensor.data_ptr(), format, block_size, v[0], v[1], block_size, 0, 1, 1, v[2]};
  if (interleaved_v) {
    values.group = x;
    values.group_stride = v[2];
    values.chunk_stride = v[3];
  }
  writes[0].scales =
      CheckScales(Argument(op, "k_scale", k_scale_tensor), 1, &writes[0].scale_stride);
  writes[1].scales =
      CheckScales(Argument(op, "v_scale", v_scale_tensor), 1, &writes[1].scale_stride);
  const Slots slots = CheckSlots(Argument(op, "slot_mapping", slot_mapping_tensor), key.shape()[0],
                                 blocks, block_size);
  WriteToCache(writes, 2, slots);
}

// Describes a cache of rows: [blocks, block_size, heads, head_size] in any order in memory, or
// without the dimension of heads.
PagedCache ToRowCache(const Argument& cache, CacheFormat format) {
  const Extents strides = cache.strides();
  PagedCache rows;
  rows.data = cache.tensor().data_ptr();
  rows.format = format;
  rows.block_size = cache.shape()[1];
  rows.block_stride = strides[0];
  rows.head_stride = cache.shape().size() == 4 ? strides[2] : 0;
  rows.group = cache.shape()[1];
  rows.token_stride = strides[1];
  rows.chunk = cache.shape().back();
  return rows;
}

void ReshapeAndCacheFlashOp(Tensor key_tensor, Tensor value_tensor, Tensor key_cache_tensor,
                            Tensor value_cache_tensor, Tensor slot_mapping_tensor,
                            StringArgument kv_cache_dtype, Tensor k_scale_tensor,
                            Tensor v_scale_tensor) {
  const char* op = "reshape_and_cache_flash";
  const Argument key(op, "key", key_tensor), value(op, "value", value_tensor);
  const Argument key_cache(op, "key_cache", key_cache_tensor),
      value_cache(op, "value_cache", value_cache_tensor);
  const CacheFormat format = CheckFormat(op, kv_cache_dtype.value, key_cache, key);
  CheckFormat(op, kv_cache_dtype.value, value_cache, value);
  CheckTokens(key, value);
  const Extents shape = key_cache.shape();
  const int64_t heads = key.shape()[1], width = key.shape()[2];
  if (shape.size() != 4 || shape[2] != heads || shape[3] != width) {
    key_cache.FailShape("[num_blocks, block_size, " + std::to_string(heads) + ", " +
                        std::to_string(width) + "] for key");
  }
  key_cache.CheckLastDimensionContiguous().CheckWritable();
  value_cache.CheckShape(shape, "the shape of key_cache")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  CacheWrite writes[2];
  writes[0].from = ToVectors(key);
  writes[0].to = ToRowCache(key_cache, format);
  writes[0].scales =
      CheckScales(Argument(op, "k_scale", k_scale_tensor), heads, &writes[0].scale_stride);
  writes[1].from = ToVectors(value);
  writes[1].to = ToRowCache(value_cache, format);
  writes[1].scales =
      CheckScales(Argument(op, "v_scale", v_scale_tensor), heads, &writes[1].scale_stride);
  const Slots slots = CheckSlots(Argument(op, "slot_mapping", slot_mapping_tensor), key.shape()[0],
                                 shape[0], shape[1]);
  WriteToCache(writes, 2, slots);
}

void ConcatAndCacheMlaOp(Tensor kv_c_tensor, Tensor k_pe_tensor, Tensor kv_cache_tensor,
                         Tensor slot_mapping_tensor, StringArgument kv_cache_dtype,
                         Tensor scale_tensor, bool skip_scale) {
  const char* op = "concat_and_cache_mla";
  const Argument kv_c(op, "kv_c", kv_c_tensor), k_pe(op, "k_pe", k_pe_tensor),
      kv_cache(op, "kv_cache", kv_cache_tensor);
  const CacheFormat format = CheckFormat(op, kv_cache_dtype.value, kv_cache, kv_c);
  kv_c.CheckRank(2, "[num_tokens, kv_lora_rank]");
  kv_c.CheckLastDimensionContiguous();
  k_pe.CheckOnDevice().CheckSameDType(kv_c).CheckLastDimensionContiguous();
  const int64_t tokens = kv_c.shape()[0], rank = kv_c.shape()[1];
  if (k_pe.shape().size() != 2 || k_pe.shape()[0] != tokens) {
    k_pe.FailShape("[" + std::to_string(tokens) + ", pe_dim] with the tokens of kv_c");
  }
  const int64_t width = rank + k_pe.shape()[1];
  const Extents shape = kv_cache.shape();
  if (shape.size() != 3 || shape[2] != width) {
    kv_cache.FailShape("[num_blocks, block_size, " + std::to_string(width) +
                       "], whose last dimension is kv_lora_rank + pe_dim");
  }
  kv_cache.CheckLastDimensionContiguous().CheckWritable();
  CacheWrite writes[2];
  writes[0].from = ToVectors(kv_c);
  writes[0].to = ToRowCache(kv_cache, format);
  writes[0].to.chunk = rank;
  writes[1].from = ToVectors(k_pe);
  writes[1].to = ToRowCache(kv_cache, format);
  writes[1].to.chunk = width - rank;
  writes[1].to.data = static_cast<char*>(kv_cache_tensor.data_ptr()) +
                      static_cast<size_t>(rank) * kv_cache_tensor.element_size();
  const float* scale = CheckScales(Argument(op, "scale", scale_tensor), 1, &writes[0].scale_stride);
  for (CacheWrite& write : writes) write.scales = skip_scale ? nullptr : scale;
  const Slots slots =
      CheckSlots(Argument(op, "slot_mapping", slot_mapping_tensor), tokens, shape[0], shape[1]);
  WriteToCache(writes, 2, slots);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C_cache_ops, m) {
  m.def(
      "reshape_and_cache(Tensor key, Tensor value, Tensor! key_cache, Tensor! value_cache, Tensor "
      "slot_mapping, str kv_cache_dtype, Tensor k_scale, Tensor v_scale, bool interleaved_v=False) "
      "-> ()");
  m.def(
      "reshape_and_cache_flash(Tensor key, Tensor value, Tensor! key_cache, Tensor! value_cache, "
      "Tensor slot_mapping, str kv_cache_dtype, Tensor k_scale, Tensor v_scale) -> ()");
  m.def(
      "concat_and_cache_mla(Tensor kv_c, Tensor k_pe, Tensor! kv_cache, Tensor slot_mapping, str "
      "kv_cache_dtype, Tensor scale, bool skip_scale=False) -> ()");
}

VLLM_LIBRARY_IMPL(_C_cache_ops, m) {
  m.impl("reshape_and_cache", VLLM_BOX(vllm::ReshapeAndCacheOp));
  m.impl("reshape_and_cache_flash", VLLM_BOX(vllm::ReshapeAndCacheFlashOp));
  m.impl("concat_and_cache_mla", VLLM_BOX(vllm::ConcatAndCacheMlaOp));
}
