// SPDX-License-Identifier: Apache-2.0
// Ops on the cache of an indexer's keys.
#include "cache/indexer.h"

#include "bindings/cache_arguments.h"
#include "bindings/library.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

// Checks kv_cache, [num_blocks, block_size, width + four bytes for each of `groups`]. Each block is
// contiguous.
IndexerCache CheckCache(const Argument& cache, int64_t width, int64_t groups) {
  cache.CheckOnDevice().CheckDType(ScalarType::Byte);
  const Extents shape = cache.shape(), strides = cache.strides();
  const int64_t bytes = width + groups * static_cast<int64_t>(sizeof(float));
  if (shape.size() != 3 || shape[1] == 0 || shape[2] != bytes) {
    cache.FailShape("[num_blocks, block_size, " + std::to_string(bytes) +
                    "]: " + std::to_string(width) + " codes and " + std::to_string(groups) +
                    " scales of four bytes");
  }
  if ((shape[1] > 1 && strides[1] != bytes) || (bytes > 1 && strides[2] != 1)) {
    cache.FailStrides("contiguous blocks");
  }
  cache.CheckWritable();
  IndexerCache result;
  result.data = static_cast<uint8_t*>(cache.tensor().data_ptr());
  result.blocks = shape[0];
  result.block_size = shape[1];
  result.block_stride = strides[0];
  result.width = width;
  result.group = width / groups;
  const auto four = [](int64_t value) { return value % static_cast<int64_t>(sizeof(float)) == 0; };
  if (!four(shape[1] * width) || (shape[0] > 1 && !four(strides[0])) ||
      reinterpret_cast<uintptr_t>(result.data) % sizeof(float) != 0) {
    cache.Fail("has shape " + FormatShape(shape) + " and strides " + FormatShape(strides),
               "scales at multiples of four bytes");
  }
  return result;
}

void IndexerKQuantAndCacheOp(Tensor k_tensor, Tensor cache_tensor, Tensor slot_mapping,
                             int64_t quant_block_size, StringArgument kv_cache_dtype) {
  const char* op = "indexer_k_quant_and_cache";
  const Argument k(op, "k", k_tensor);
  k.CheckOnDevice().CheckFloating();
  k.CheckRank(2, "[num_tokens, head_dim]");
  k.CheckLastDimensionContiguous();
  const int64_t width = k.shape()[1];
  if (quant_block_size < 1 || width == 0 || width % quant_block_size != 0) {
    FailOp(op, "quant_block_size is " + std::to_string(quant_block_size) +
                   ", expected a divisor of head_dim " + std::to_string(width) + " of k");
  }
  const std::string& format = kv_cache_dtype.value;
  const bool powers_of_two = format == "ue8m0";
  if (!powers_of_two && !format.empty() && format != "auto" && format != "fp8" &&
      format != "fp8_e4m3") {
    FailOp(op, "kv_cache_dtype is '" + format + "', expected ue8m0, auto, fp8 or fp8_e4m3");
  }
  const IndexerCache cache =
      CheckCache(Argument(op, "kv_cache", cache_tensor), width, width / quant_block_size);
  TokenVectors keys;
  keys.data = k_tensor.data_ptr();
  keys.dtype = k.dtype();
  keys.element_size = k_tensor.element_size();
  keys.heads = 1;
  keys.width = width;
  keys.token_stride = k.strides()[0];
  const Slots slots = CheckSlots(Argument(op, "slot_mapping", slot_mapping), k.shape()[0],
                                 cache.blocks, cache.block_size);
  WriteIndexerKeys(keys, cache, slots, powers_of_two);
}

void CpGatherIndexerKQuantCacheOp(Tensor cache_tensor, Tensor k_tensor, Tensor scale_tensor,
                                  Tensor table_tensor, Tensor bounds_tensor) {
  const char* op = "cp_gather_indexer_k_quant_cache";
  const Argument k(op, "dst_k", k_tensor), scale(op, "dst_scale", scale_tensor);
  CheckCodes(k.CheckOnDevice(), CacheFormat::kE4m3);
  if (k.shape().size() != 2 || k.shape()[1] == 0) k.FailShape("[num_tokens, head_dim]");
  k.CheckLastDimensionContiguous().CheckWritable();
  const int64_t tokens = k.shape()[0], width = k.shape()[1];
  // float32 or its bytes.
  scale.CheckOnDevice();
  const bool bytes = scale_tensor.scalar_type() == ScalarType::Byte;
  if (!bytes) scale.CheckDType(ScalarType::Float);
  const int64_t each = bytes ? static_cast<int64_t>(sizeof(float)) : 1;
  const Extents shape = scale.shape();
  if (shape.size() != 2 || shape[0] != tokens || shape[1] == 0 || shape[1] % each != 0 ||
      width % (shape[1] / each) != 0) {
    scale.FailShape("[" + std::to_string(tokens) +
                    ", scales of a token], float32 or its bytes, which divide the " +
                    std::to_string(width) + " elements of dst_k");
  }
  scale.CheckLastDimensionContiguous().CheckWritable();
  if ((tokens > 1 && scale.strides()[0] % each != 0) ||
      reinterpret_cast<uintptr_t>(scale_tensor.data_ptr()) % sizeof(float) != 0) {
    scale.FailStrides("scales at multiples of four bytes");
  }
  const IndexerCache cache =
      CheckCache(Argument(op, "kv_cache", cache_tensor), width, shape[1] / each);

  const Argument table(op, "block_table", table_tensor), bounds(op, "cu_seq_lens", bounds_tensor);
  table.CheckOnDevice().CheckDType(ScalarType::Int);
  table.CheckRank(2, "[sequences, blocks of a sequence]");
  Sequences sequences;
  sequences.batch = table.shape()[0];
  bounds.CheckOnDevice()
      .CheckDType(ScalarType::Int)
      .CheckShape({sequences.batch + 1}, "one more than the number of sequences of block_table");
  sequences.table = static_cast<const int32_t*>(table_tensor.data_ptr());
  sequences.table_stride = table.strides()[0];
  sequences.column_stride = table.strides()[1];
  sequences.columns = table.shape()[1];
  sequences.bounds = static_cast<const int32_t*>(bounds_tensor.data_ptr());
  sequences.bound_stride = bounds.strides()[0];
  sequences.tokens = tokens;
  GatherIndexerKeys(cache, sequences, static_cast<uint8_t*>(k_tensor.data_ptr()), k.strides()[0],
                    static_cast<float*>(scale_tensor.data_ptr()), scale.strides()[0] / each);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C_cache_ops, m) {
  m.def(
      "indexer_k_quant_and_cache(Tensor k, Tensor! kv_cache, Tensor slot_mapping, int "
      "quant_block_size, str kv_cache_dtype) -> ()");
  m.def(
      "cp_gather_indexer_k_quant_cache(Tensor kv_cache, Tensor! dst_k, Tensor! dst_scale, Tensor "
      "block_table, Tensor cu_seq_lens) -> ()");
}

VLLM_LIBRARY_IMPL(_C_cache_ops, m) {
  m.impl("indexer_k_quant_and_cache", VLLM_BOX(vllm::IndexerKQuantAndCacheOp));
  m.impl("cp_gather_indexer_k_quant_cache", VLLM_BOX(vllm::CpGatherIndexerKQuantCacheOp));
}
