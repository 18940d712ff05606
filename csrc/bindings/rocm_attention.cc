// SPDX-License-Identifier: Apache-2.0
#include "attention/rocm_attention.h"

#include <cstdint>
#include <optional>
#include <string>

#include "bindings/cache_arguments.h"
#include "bindings/library.h"
#include "bindings/quantized.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

constexpr const char* kOp = "paged_attention";
constexpr int64_t kMostBlocks = 65535;  // of threads, along y and z

void CheckSequences(const Argument& argument, int64_t count, const char* why) {
  argument.CheckOnDevice().CheckDType(ScalarType::Int).CheckShape({count}, why).CheckContiguous();
}

// Codes are Byte, or torch's type of one of the two formats.
CodeFormat CheckCodeFormat(const Argument& argument) {
  argument.CheckDTypeIn({ScalarType::Byte, ScalarType::Float8_e4m3fn, ScalarType::Float8_e4m3fnuz});
  if (argument.scalar_type() == ScalarType::Byte) return CodeFormat::kOfDevice;
  return argument.scalar_type() == ScalarType::Float8_e4m3fn ? CodeFormat::kE4M3
                                                             : CodeFormat::kFnuz;
}

void CheckQuery(const Argument& query, int64_t num_kv_heads, RocmAttention* attention) {
  query.CheckOnDevice().CheckDTypeIn({ScalarType::BFloat16, ScalarType::Half});
  query.CheckRank(3, "[tokens, heads, head_size]").CheckLastDimensionContiguous();
  const Extents shape = query.shape();
  if (shape[2] != 64 && shape[2] != 128) query.FailShape("a head_size of 64 or 128");
  if (num_kv_heads < 1 || shape[1] % num_kv_heads != 0) {
    FailOp(kOp, "num_kv_heads is " + std::to_string(num_kv_heads) + ", expected a divisor of " +
                    std::to_string(shape[1]) + ", the heads of query");
  }
  if (shape[1] > kMostBlocks) query.FailShape("at most " + std::to_string(kMostBlocks) + " heads");
  attention->dtype = query.dtype();
  attention->tokens = shape[0];
  attention->heads = shape[1];
  attention->kv_heads = num_kv_heads;
  attention->head_size = shape[2];
  attention->query = query.tensor().data_ptr();
  attention->query_token_stride = query.strides()[0];
  attention->query_head_stride = query.strides()[1];
}

void CheckOut(const Argument& out, const Argument& query,
              const std::optional<Tensor>& fp8_out_scale, RocmAttention* attention) {
  out.CheckOnDevice();
  if (fp8_out_scale.has_value()) {
    attention->out_format = CheckCodeFormat(out);
    attention->out_scale = CheckScalar(Argument(kOp, "fp8_out_scale", *fp8_out_scale));
  } else {
    out.CheckSameDType(query);
  }
  out.CheckShape(query.shape(), "the shape of query")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  attention->out = out.tensor().data_ptr();
  attention->out_token_stride = out.strides()[0];
  attention->out_head_stride = out.strides()[1];
}

// Checks that blocks and heads of a cache begin at multiples of 16 bytes, which are read at once.
void CheckCacheStrides(const Argument& cache, int64_t x) {
  cache.CheckAligned(16);
  for (int dim = 0; dim < 2; ++dim) {
    if (cache.shape()[dim] > 1 && cache.strides()[dim] % x != 0) {
      cache.FailStrides("multiples of " + std::to_string(x) + ", 16 bytes, for blocks and heads");
    }
  }
}

void CheckCaches(const Argument& keys, const Argument& values, const Argument& query,
                 const std::string& kv_cache_dtype, int64_t block_size, bool interleaved,
                 RocmAttention* attention) {
  const CacheFormat format = ParseFormat(kOp, kv_cache_dtype);
  if (format == CacheFormat::kE5m2)
    FailOp(kOp, "kv_cache_dtype is 'fp8_e5m2', expected auto, float16, bfloat16, fp8 or fp8_e4m3");
  keys.CheckOnDevice();
  values.CheckOnDevice();
  if (format == CacheFormat::kSame) {
    CheckFormat(kOp, kv_cache_dtype, keys, query);
  } else {
    attention->cache_format = CheckCodeFormat(keys);
  }
  values.CheckSameDType(keys);
  if (block_size < kRocmTile || block_size % kRocmTile != 0 || block_size > kMostBlocks) {
    FailOp(kOp, "block_size is " + std::to_string(block_size) +
                    ", expected a multiple of 16 below " + std::to_string(kMostBlocks));
  }
  const int64_t heads = attention->kv_heads, size = attention->head_size;
  const int64_t x = 16 / static_cast<int64_t>(keys.tensor().element_size());
  keys.CheckRank(5, "[num_blocks, num_kv_heads, head_size / x, block_size, x]");
  const int64_t blocks = keys.shape()[0];
  keys.CheckShape({blocks, heads, size / x, block_size, x},
                  "[num_blocks, num_kv_heads, head_size / x, block_size, x], x elements being 16 "
                  "bytes");
  const Extents of_keys = keys.strides();
  if (of_keys[4] != 1 || of_keys[3] != x || of_keys[2] != block_size * x)
    keys.FailStrides("adjacent elements of a block's head");
  CheckCacheStrides(keys, x);

  const Extents of_values = values.strides();
  if (values.shape().size() == 5 && interleaved) {
    values.CheckShape({blocks, heads, block_size / x, size, x},
                      "[num_blocks, num_kv_heads, block_size / x, head_size, x]");
    if (of_values[4] != 1 || of_values[3] != x || of_values[2] != size * x)
      values.FailStrides("adjacent elements of a block's head");
  } else {
    values.CheckShape({blocks, heads, size, block_size},
                      "[num_blocks, num_kv_heads, head_size, block_size]");
    if (of_values[3] != 1 || of_values[2] != block_size)
      values.FailStrides("adjacent elements of a block's head");
  }
  CheckCacheStrides(values, x);
  attention->keys = keys.tensor().data_ptr();
  attention->values = values.tensor().data_ptr();
  attention->blocks = blocks;
  attention->block_size = static_cast<int>(block_size);
  attention->key_block_stride = of_keys[0];
  attention->key_head_stride = of_keys[1];
  attention->value_block_stride = of_values[0];
  attention->value_head_stride = of_values[1];
  attention->value_row_stride = static_cast<int>(interleaved ? x : block_size);
  attention->value_group_stride = static_cast<int>(interleaved ? size * x : x);
}

void CheckTable(const Argument& table, const Argument& seq_lens,
                const std::optional<Tensor>& query_start_loc, const Argument& query,
                RocmAttention* attention) {
  table.CheckOnDevice().CheckDType(ScalarType::Int);
  table.CheckRank(2, "[sequences, blocks of a sequence]").CheckLastDimensionContiguous();
  attention->sequences = table.shape()[0];
  attention->columns = table.shape()[1];
  attention->table = table.Data<const int32_t>();
  attention->table_stride = table.strides()[0];
  CheckSequences(seq_lens, attention->sequences, "one for each row of block_tables");
  attention->lengths = seq_lens.Data<const int32_t>();
  if (query_start_loc.has_value()) {
    const Argument starts(kOp, "query_start_loc", *query_start_loc);
    CheckSequences(starts, attention->sequences + 1,
                   "one more than there are rows of block_tables");
    attention->starts = starts.Data<const int32_t>();
  } else if (attention->tokens != attention->sequences) {
    query.FailShape(std::to_string(attention->sequences) +
                    " tokens, one for each row of block_tables, without query_start_loc");
  }
}

// Checks what the first pass writes for the second.
void CheckScratch(const Argument& sums, const Argument& maxima, const Argument& partial,
                  const Argument& query, RocmAttention* attention) {
  const int64_t partitions = attention->partitions;
  const char* why = "[sequences, heads, partitions of 256 tokens in max_seq_len]";
  for (const Argument* argument : {&sums, &maxima}) {
    argument->CheckOnDevice()
        .CheckDType(ScalarType::Float)
        .CheckShape({attention->sequences, attention->heads, partitions}, why)
        .CheckContiguous()
        .CheckWritable();
  }
  partial.CheckOnDevice()
      .CheckSameDType(query)
      .CheckShape({attention->sequences, attention->heads, partitions, attention->head_size},
                  "[sequences, heads, partitions of 256 tokens in max_seq_len, head_size]")
      .CheckContiguous()
      .CheckWritable();
  attention->sums = sums.Data<float>();
  attention->maxima = maxima.Data<float>();
  attention->partial_out = partial.tensor().data_ptr();
}

void PagedAttention(Tensor out_tensor, Tensor exp_sums, Tensor max_logits, Tensor tmp_out,
                    Tensor query_tensor, Tensor key_cache, Tensor value_cache, int64_t num_kv_heads,
                    double scale, Tensor block_tables, Tensor seq_lens,
                    std::optional<Tensor> query_start_loc, int64_t block_size, int64_t max_seq_len,
                    std::optional<Tensor> alibi_slopes, StringArgument kv_cache_dtype,
                    Tensor k_scale, Tensor v_scale, std::optional<Tensor> fp8_out_scale,
                    StringArgument mfma_type, bool use_interleaved_v_cache) {
  const Argument query(kOp, "query", query_tensor), out(kOp, "out", out_tensor);
  RocmAttention attention;
  attention.scale = static_cast<float>(scale);
  CheckQuery(query, num_kv_heads, &attention);
  CheckOut(out, query, fp8_out_scale, &attention);
  CheckCaches(Argument(kOp, "key_cache", key_cache), Argument(kOp, "value_cache", value_cache),
              query, kv_cache_dtype.value, block_size, use_interleaved_v_cache, &attention);
  const Argument k(kOp, "k_scale", k_scale), v(kOp, "v_scale", v_scale);
  if (attention.cache_format != CodeFormat::kNone) {
    attention.key_scale = CheckScalar(k);
    attention.value_scale = CheckScalar(v);
  }
  CheckTable(Argument(kOp, "block_tables", block_tables), Argument(kOp, "seq_lens", seq_lens),
             query_start_loc, query, &attention);
  CheckAtLeast(kOp, "max_seq_len", max_seq_len, 0);
  attention.partitions = (max_seq_len + kRocmPartition - 1) / kRocmPartition;
  if (attention.sequences > kMostBlocks || attention.partitions > kMostBlocks) {
    FailOp(kOp, "there are " + std::to_string(attention.sequences) + " sequences and " +
                    std::to_string(attention.partitions) + " partitions, expected at most " +
                    std::to_string(kMostBlocks) + " of each");
  }
  attention.max_length = max_seq_len;
  CheckScratch(Argument(kOp, "exp_sums", exp_sums), Argument(kOp, "max_logits", max_logits),
               Argument(kOp, "tmp_out", tmp_out), query, &attention);
  if (alibi_slopes.has_value()) {
    const Argument slopes(kOp, "alibi_slopes", *alibi_slopes);
    slopes.CheckOnDevice()
        .CheckDType(ScalarType::Float)
        .CheckShape({attention.heads}, "one for each head of query")
        .CheckContiguous();
    attention.slopes = slopes.Data<const float>();
  }
  // Both names mean the same here: products of float8 are as exact as those of 16-bit numbers.
  if (mfma_type.value != "f16" && mfma_type.value != "fp8")
    FailOp(kOp, "mfma_type is '" + mfma_type.value + "', expected f16 or fp8");
  RunRocmAttention(attention);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_rocm_C, m) {
  m.def(
      "paged_attention(Tensor! out, Tensor exp_sums, Tensor max_logits, Tensor tmp_out, Tensor "
      "query, Tensor key_cache, Tensor value_cache, int num_kv_heads, float scale, Tensor "
      "block_tables, Tensor seq_lens, Tensor? query_start_loc, int block_size, int max_seq_len, "
      "Tensor? alibi_slopes, str kv_cache_dtype, Tensor k_scale, Tensor v_scale, Tensor? "
      "fp8_out_scale, str mfma_type, bool use_interleaved_v_cache=False) -> ()");
}

VLLM_LIBRARY_IMPL(_rocm_C, m) { m.impl("paged_attention", VLLM_BOX(vllm::PagedAttention)); }
