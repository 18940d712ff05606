// SPDX-License-Identifier: Apache-2.0
#include "norm/qk_norm_rope.h"

#include <string>

#include "bindings/library.h"
#include "bindings/rotary_cache.h"

namespace vllm {
namespace {

constexpr const char* kOp = "fused_qk_norm_rope";

const void* CheckWeight(const char* name, const Tensor& tensor, const Argument& qkv,
                        int64_t head_size) {
  const Argument weight(kOp, name, tensor);
  weight.CheckOnDevice()
      .CheckSameDType(qkv)
      .CheckShape({head_size}, "one element for each of a head")
      .CheckLastDimensionContiguous();
  return tensor.data_ptr();
}

// forced_token_heads_per_warp sets how upstream's GPU kernel divides its work; the kernels here
// ignore it.
void FusedQkNormRopeOp(Tensor qkv_tensor, int64_t num_heads_q, int64_t num_heads_k,
                       int64_t num_heads_v, int64_t head_dim, double eps, Tensor q_weight,
                       Tensor k_weight, Tensor cos_sin_cache, bool is_neox, Tensor position_ids,
                       int64_t /*forced_token_heads_per_warp*/) {
  const Argument qkv(kOp, "qkv", qkv_tensor);
  qkv.CheckOnDevice().CheckFloating().CheckLastDimensionContiguous().CheckWritable();
  CheckAtLeast(kOp, "head_dim", head_dim, 1);
  CheckAtLeast(kOp, "num_heads_q", num_heads_q, 0);
  CheckAtLeast(kOp, "num_heads_k", num_heads_k, 0);
  CheckAtLeast(kOp, "num_heads_v", num_heads_v, 0);
  // Divides rather than multiplies, because the numbers of heads are unchecked and a product could
  // overflow.
  const Extents shape = qkv.shape();
  const int64_t heads = shape.back() / head_dim;
  if (shape.size() != 2 || shape.back() % head_dim != 0 || num_heads_q > heads ||
      num_heads_k > heads - num_heads_q || num_heads_v != heads - num_heads_q - num_heads_k) {
    qkv.FailShape("[tokens, (" + std::to_string(num_heads_q) + " + " + std::to_string(num_heads_k) +
                  " + " + std::to_string(num_heads_v) + ") * " + std::to_string(head_dim) +
                  "]: query, key and value heads of head_dim elements");
  }
  const Argument positions(kOp, "position_ids", position_ids);
  positions.CheckOnDevice()
      .CheckDType(torch::headeronly::ScalarType::Long)
      .CheckShape({shape[0]}, "a position for each token of qkv");
  const Argument cache(kOp, "cos_sin_cache", cos_sin_cache);
  QkNormRope how;
  how.cache = CheckRotaryCache(cache);
  if (how.cache.rotary_dim > head_dim) {
    cache.FailShape("at most head_dim " + std::to_string(head_dim) + " in the second dimension");
  }
  how.query_heads = num_heads_q;
  how.key_heads = num_heads_k;
  how.head_size = head_dim;
  how.epsilon = static_cast<float>(eps);
  how.query_weight = CheckWeight("q_weight", q_weight, qkv, head_dim);
  how.key_weight = CheckWeight("k_weight", k_weight, qkv, head_dim);
  how.neox = is_neox;
  NormalizeAndRotateHeads(qkv.GetLastDimensionRows(), positions.GetLeadingRows(1, 1), how);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "fused_qk_norm_rope(Tensor! qkv, int num_heads_q, int num_heads_k, int num_heads_v, int "
      "head_dim, float eps, Tensor q_weight, Tensor k_weight, Tensor cos_sin_cache, bool is_neox, "
      "Tensor position_ids, int forced_token_heads_per_warp=-1) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) { m.impl("fused_qk_norm_rope", VLLM_BOX(vllm::FusedQkNormRopeOp)); }
