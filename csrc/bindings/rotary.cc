// SPDX-License-Identifier: Apache-2.0
#include "rotary/rotary.h"

#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/rotary_cache.h"

namespace vllm {
namespace {

// Checks a query or key: the dimensions of positions, then [heads, head_size] or [heads *
// head_size].
Heads CheckHeads(const Argument& argument, const Argument& positions, int64_t head_size) {
  argument.CheckOnDevice().CheckFloating().CheckLastDimensionContiguous().CheckWritable();
  const Extents shape = argument.shape();
  const size_t leading = positions.shape().size();
  const bool split = shape.size() == leading + 2;
  bool fits = split || shape.size() == leading + 1;
  for (size_t i = 0; fits && i < leading; ++i) fits = shape[i] == positions.shape()[i];
  fits = fits && (split ? shape.back() == head_size : shape.back() % head_size == 0);
  if (!fits) {
    std::vector<int64_t> tokens = positions.shape().vec();
    std::string text = FormatShape(tokens);
    text.pop_back();
    const std::string size = std::to_string(head_size);
    argument.FailShape(text + ", heads * " + size + "] or " + text + ", heads, " + size +
                       "]: the dimensions of positions, then heads of head_size " + size);
  }
  Heads heads;
  heads.tokens = argument.GetLeadingRows(leading, head_size);
  heads.heads = split ? shape[leading] : shape[leading] / head_size;
  heads.head_stride = split ? argument.strides()[leading] : head_size;
  return heads;
}

void RotaryEmbeddingOp(Tensor positions_tensor, Tensor query_tensor,
                       std::optional<Tensor> key_tensor, int64_t head_size,
                       Tensor cos_sin_cache_tensor, bool is_neox, int64_t rope_dim_offset,
                       bool inverse) {
  const char* op = "rotary_embedding";
  const Argument positions(op, "positions", positions_tensor);
  positions.CheckOnDevice().CheckDType(torch::headeronly::ScalarType::Long);
  if (positions.shape().empty() || positions.shape().size() > 2) {
    positions.FailShape("[num_tokens] or [batch_size, seq_len]");
  }
  CheckAtLeast(op, "head_size", head_size, 1);

  const Argument cache(op, "cos_sin_cache", cos_sin_cache_tensor);
  const RotaryCache angles = CheckRotaryCache(cache);
  if (rope_dim_offset < 0 || rope_dim_offset > head_size ||
      angles.rotary_dim > head_size - rope_dim_offset) {
    FailOp(op, "rope_dim_offset " + std::to_string(rope_dim_offset) + " and the rotary dimension " +
                   std::to_string(angles.rotary_dim) +
                   " of cos_sin_cache do not fit into head_size " + std::to_string(head_size) +
                   ", expected 0 <= rope_dim_offset <= head_size - rotary_dim");
  }

  const Argument query(op, "query", query_tensor);
  const Heads query_heads = CheckHeads(query, positions, head_size);
  const Rows tokens = positions.GetLeadingRows(positions.shape().size(), 1);
  if (!key_tensor.has_value()) {
    return ApplyRotaryEmbedding(tokens, query_heads, nullptr, angles, is_neox, rope_dim_offset,
                                inverse);
  }
  const Argument key(op, "key", *key_tensor);
  key.CheckSameDType(query);
  const Heads key_heads = CheckHeads(key, positions, head_size);
  ApplyRotaryEmbedding(tokens, query_heads, &key_heads, angles, is_neox, rope_dim_offset, inverse);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "rotary_embedding(Tensor positions, Tensor! query, Tensor!? key, int head_size, Tensor "
      "cos_sin_cache, bool is_neox, int rope_dim_offset=0, bool inverse=False) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) { m.impl("rotary_embedding", VLLM_BOX(vllm::RotaryEmbeddingOp)); }
