// SPDX-License-Identifier: Apache-2.0
#include "attention/attention.h"
#include "bindings/attention_arguments.h"
#include "bindings/library.h"

namespace vllm {
namespace {

void LatentAttentionOp(Tensor out_tensor, Tensor query_tensor, Tensor kv_cache_tensor, double scale,
                       Tensor block_tables_tensor, Tensor seq_lens_tensor) {
  const char* op = "mla_decode_kvcache";
  const Argument out(op, "out", out_tensor);
  const Argument query(op, "query", query_tensor);
  const Argument cache(op, "kv_cache", kv_cache_tensor);
  LatentAttention call;
  call.query = CheckHeads(query);
  call.output = CheckHeads(out.CheckSameDType(query).CheckWritable());
  const Extents shape = query.shape();
  cache.CheckOnDevice().CheckSameDType(query).CheckLastDimensionContiguous();
  if (cache.shape().size() != 3 || cache.shape()[2] != shape[2] || cache.shape()[1] < 1) {
    cache.FailShape("[num_blocks, block_size, " + std::to_string(shape[2]) +
                    "] with rows as long as a query");
  }
  if (out.shape()[0] != shape[0] || out.shape()[1] != shape[1] || out.shape()[2] > shape[2]) {
    out.FailShape("[num_seqs, heads, value_size] of query with a value_size of at most " +
                  std::to_string(shape[2]));
  }
  call.cache = kv_cache_tensor.data_ptr();
  call.block_size = cache.shape()[1];
  call.block_stride = cache.strides()[0];
  call.token_stride = cache.strides()[1];
  call.head_size = shape[2];
  call.value_size = out.shape()[2];
  const Argument block_tables(op, "block_tables", block_tables_tensor);
  CheckBlockTable(block_tables, shape[0]);
  const Argument seq_lens(op, "seq_lens", seq_lens_tensor);
  const Ints lengths = CheckInts(seq_lens, shape[0], "the number of sequences");
  call.seq_lens.resize(static_cast<size_t>(shape[0]));
  for (size_t i = 0; i < call.seq_lens.size(); ++i) {
    call.seq_lens[i] = lengths[i];
    if (lengths[i] < 0)
      seq_lens.Fail("holds " + std::to_string(lengths[i]) + " for sequence " + std::to_string(i),
                    "lengths of 0 or more");
    CheckBlocks(block_tables, static_cast<int64_t>(i), 0, lengths[i], call.block_size,
                cache.shape()[0]);
  }
  call.block_table = static_cast<const int32_t*>(block_tables_tensor.data_ptr());
  call.block_table_stride = block_tables.strides()[0];
  call.scale = static_cast<float>(scale);
  RunLatentAttention(call);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "mla_decode_kvcache(Tensor! out, Tensor query, Tensor kv_cache, float scale, Tensor "
      "block_tables, Tensor seq_lens) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) { m.impl("mla_decode_kvcache", VLLM_BOX(vllm::LatentAttentionOp)); }
