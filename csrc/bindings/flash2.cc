// SPDX-License-Identifier: Apache-2.0
// FlashAttention 2 (Dao 2023, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning") behind upstream's ops.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "attention/flash2/run.h"
#include "bindings/flash2_arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using flash2::Params;
using torch::headeronly::ScalarType;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// No key for anybody: nothing is added up.
std::vector<Tensor> WithoutKeys(Tensor out, Tensor lse) {
  torch::stable::zero_(out);
  torch::stable::fill_(lse, kInfinity);
  return {out, lse};
}

std::vector<Tensor> VarlenFwd(Tensor q_tensor, Tensor k_tensor, Tensor v_tensor, std::optional<Tensor> out_tensor,
                              Tensor cu_seqlens_q_tensor, Tensor cu_seqlens_k_tensor, std::optional<Tensor> seqused_k,
                              std::optional<Tensor> leftpad_k, std::optional<Tensor> block_table, std::optional<Tensor> alibi_slopes,
                              int64_t max_seqlen_q, int64_t max_seqlen_k, double p_dropout, double softmax_scale, bool zero_tensors,
                              bool is_causal, int64_t window_size_left, int64_t window_size_right, double softcap, bool return_softmax,
                              int64_t num_splits, std::optional<Tensor> /*gen*/) {
  const char* op = "varlen_fwd";
  if (p_dropout != 0 || return_softmax) flash2::FailOp(op, "p_dropout or return_softmax is set, expected neither: dropout is not built");
  const Argument q(op, "q", q_tensor), k(op, "k", k_tensor), v(op, "v", v_tensor);
  const Argument cu_seqlens_q(op, "cu_seqlens_q", cu_seqlens_q_tensor), cu_seqlens_k(op, "cu_seqlens_k", cu_seqlens_k_tensor);
  const bool paged = block_table.has_value();
  flash2::CheckMatrix(q, 3);
  flash2::CheckMatrix(k, paged ? 4 : 3, q);
  flash2::CheckMatrix(v, paged ? 4 : 3, q);
  v.HasShape(k.shape(), "the shape of k");
  const int64_t total_q = q.shape()[0], heads = q.shape()[1], head_size = q.shape()[2];
  const int64_t kv_heads = k.shape()[paged ? 2 : 1];
  if (k.shape().back() != head_size) k.Fail("has shape " + ShapeText(k.shape()), "the head size of q, " + std::to_string(head_size));
  if (cu_seqlens_q.shape().size() != 1 || cu_seqlens_q.shape()[0] < 1) {
    cu_seqlens_q.Fail("has shape " + ShapeText(cu_seqlens_q.shape()), "[sequences + 1]");
  }
  const int64_t batch = cu_seqlens_q.shape()[0] - 1;

  Params params{};
  flash2::SetHeads(&params, q, kv_heads, k);
  params.b = flash2::CheckedInt(op, "the number of sequences", batch);
  params.seqlen_q = flash2::CheckedInt(op, "max_seqlen_q", max_seqlen_q);
  params.seqlen_k = flash2::CheckedInt(op, "max_seqlen_k", max_seqlen_k);
  params.total_q = flash2::CheckedInt(op, "the number of queries", total_q);
  params.cu_seqlens_q = flash2::CheckedInts(cu_seqlens_q, batch + 1, "one more than there are sequences");
  params.cu_seqlens_k = flash2::CheckedInts(cu_seqlens_k, batch + 1, "one more than there are sequences");
  params.is_seqlens_k_cumulative = true;
  if (seqused_k.has_value()) {
    params.seqused_k = flash2::CheckedInts(Argument(op, "seqused_k", *seqused_k), batch, "a length for each sequence");
  }
  if (paged) {
    flash2::SetCaches(&params, k, v);
    flash2::SetPages(&params, Argument(op, "block_table", *block_table), k, batch, false);
    if (seqused_k.has_value()) {
      // Where keys begin is the table's to say, and callers that know how many there are pass anything for cu_seqlens_k.
      params.cu_seqlens_k = params.seqused_k;
      params.is_seqlens_k_cumulative = false;
    }
  } else {
    params.k_ptr = k.tensor().data_ptr();
    params.v_ptr = v.tensor().data_ptr();
    params.k_row_stride = k.strides()[0];
    params.v_row_stride = v.strides()[0];
    params.k_head_stride = k.strides()[1];
    params.v_head_stride = v.strides()[1];
    params.page_block_size = 1;
  }
  if (leftpad_k.has_value()) {
    const Argument leftpad(op, "leftpad_k", *leftpad_k);
    if (paged) leftpad.Fail("is given together with block_table", "one of them");
    params.leftpad_k = flash2::CheckedInts(leftpad, batch, "a number for each sequence");
  }
  if (alibi_slopes.has_value()) flash2::SetAlibi(&params, Argument(op, "alibi_slopes", *alibi_slopes), batch, heads);
  flash2::SetScores(&params, softmax_scale, softcap);
  flash2::SetMask(&params, op, is_causal, window_size_left, window_size_right, max_seqlen_k,
                  max_seqlen_q == 1 && !alibi_slopes.has_value());

  Tensor out = flash::OutputOf(op, q, out_tensor);
  Tensor lse = NewTensor<2>(q_tensor, {heads, total_q}, ScalarType::Float);
  if (total_q == 0 || batch == 0) return {out, lse};
  if (max_seqlen_k == 0) return WithoutKeys(out, lse);
  if (zero_tensors) {
    torch::stable::zero_(out);
    torch::stable::fill_(lse, -kInfinity);
  }
  params.q_row_stride = q.strides()[0];
  params.q_head_stride = q.strides()[1];
  params.o_ptr = out.data_ptr();
  params.o_row_stride = out.strides()[0];
  params.o_head_stride = out.strides()[1];
  params.softmax_lse_ptr = lse.data_ptr();
  params.unpadded_lse = true;

  // One query for each sequence: its place follows from the sequence, heads can be grouped and keys be split.
  const bool decode = max_seqlen_q == 1 && total_q == batch;
  flash2::Parts parts;
  if (decode) {
    params.cu_seqlens_q = nullptr;
    params.q_batch_stride = params.q_row_stride;
    params.o_batch_stride = params.o_row_stride;
    params.seqlenq_ngroups_swapped = flash2::GroupHeads(&params, heads, kv_heads);
    parts = flash2::SetSplits(&params, op, q_tensor, num_splits);
  } else {
    params.h = static_cast<int>(heads);
    params.h_k = static_cast<int>(kv_heads);
    params.h_h_k_ratio = params.h / params.h_k;
    params.num_splits = 1;
  }
  flash2::Run(params, paged);
  return {out, lse};
}

// The keys and values that are appended to the cache, and the rotation of these and of the queries.
void SetNewKeys(Params* params, const char* op, const Argument& q, const std::optional<Tensor>& k_tensor,
                const std::optional<Tensor>& v_tensor, const std::optional<Tensor>& seqlens_k, const std::optional<Tensor>& rotary_cos,
                const std::optional<Tensor>& rotary_sin, bool interleaved, int64_t kv_heads) {
  if (k_tensor.has_value() != v_tensor.has_value()) flash2::FailOp(op, "k or v is given alone, expected both or neither");
  if (rotary_cos.has_value() != rotary_sin.has_value())
    flash2::FailOp(op, "rotary_cos or rotary_sin is given alone, expected both or neither");
  if (!k_tensor.has_value()) {
    if (rotary_cos.has_value()) flash2::FailOp(op, "rotary_cos is given without k, expected new keys to rotate");
    return;
  }
  const Argument k(op, "k", *k_tensor), v(op, "v", *v_tensor);
  if (!seqlens_k.has_value()) k.Fail("is given without seqlens_k", "the lengths after which it is appended");
  flash2::CheckMatrix(k, 4, q);
  flash2::CheckMatrix(v, 4, q);
  const int64_t rows = k.shape()[1];
  k.HasShape({q.shape()[0], rows, kv_heads, q.shape()[3]}, "new rows for each sequence of the cache");
  v.HasShape(k.shape(), "the shape of k");
  if (q.shape()[1] > params->seqlen_k) {
    q.Fail("has " + std::to_string(q.shape()[1]) + " rows", "at most the " + std::to_string(params->seqlen_k) + " of the cache");
  }
  params->seqlen_knew = flash2::CheckedInt(op, "the number of new keys", rows);
  params->knew_ptr = k.tensor().data_ptr();
  params->vnew_ptr = v.tensor().data_ptr();
  params->knew_batch_stride = k.strides()[0];
  params->vnew_batch_stride = v.strides()[0];
  params->knew_row_stride = k.strides()[1];
  params->vnew_row_stride = v.strides()[1];
  params->knew_head_stride = k.strides()[2];
  params->vnew_head_stride = v.strides()[2];
  if (!rotary_cos.has_value()) return;

  const Argument cos(op, "rotary_cos", *rotary_cos), sin(op, "rotary_sin", *rotary_sin);
  flash2::CheckMatrix(cos, 2, q);
  flash2::CheckMatrix(sin, 2, q);
  sin.HasShape(cos.shape(), "the shape of rotary_cos");
  const int64_t positions = cos.shape()[0], rotated = 2 * cos.shape()[1];
  if (rotated > params->d || rotated % 16 != 0) {
    cos.Fail("rotates " + std::to_string(rotated) + " elements", "a multiple of 16 up to the head size, " + std::to_string(params->d));
  }
  if (positions < params->seqlen_k) {
    cos.Fail("has " + std::to_string(positions) + " rows", "one for each of the cache's " + std::to_string(params->seqlen_k));
  }
  for (const Argument* table : {&cos, &sin}) {
    if (!table->tensor().is_contiguous()) table->Fail("has strides " + ShapeText(table->strides()), "contiguous memory");
  }
  params->rotary_dim = static_cast<int>(rotated);
  params->rotary_cos_ptr = cos.tensor().data_ptr();
  params->rotary_sin_ptr = sin.tensor().data_ptr();
  params->is_rotary_interleaved = interleaved;
}

std::vector<Tensor> FwdKvcache(Tensor q_tensor, Tensor kcache_tensor, Tensor vcache_tensor, std::optional<Tensor> k,
                               std::optional<Tensor> v, std::optional<Tensor> seqlens_k, std::optional<Tensor> rotary_cos,
                               std::optional<Tensor> rotary_sin, std::optional<Tensor> cache_batch_idx, std::optional<Tensor> leftpad_k,
                               std::optional<Tensor> block_table, std::optional<Tensor> alibi_slopes, std::optional<Tensor> out_tensor,
                               double softmax_scale, bool is_causal, int64_t window_size_left, int64_t window_size_right, double softcap,
                               bool is_rotary_interleaved, int64_t num_splits) {
  const char* op = "fwd_kvcache";
  const Argument q(op, "q", q_tensor), kcache(op, "kcache", kcache_tensor), vcache(op, "vcache", vcache_tensor);
  flash2::CheckMatrix(q, 4);
  flash2::CheckMatrix(kcache, 4, q);
  flash2::CheckMatrix(vcache, 4, q);
  vcache.HasShape(kcache.shape(), "the shape of kcache");
  const int64_t batch = q.shape()[0], queries = q.shape()[1], heads = q.shape()[2], head_size = q.shape()[3];
  const int64_t kv_heads = kcache.shape()[2];
  if (kcache.shape()[3] != head_size) {
    kcache.Fail("has shape " + ShapeText(kcache.shape()), "the head size of q, " + std::to_string(head_size));
  }

  Params params{};
  flash2::SetHeads(&params, q, kv_heads, kcache);
  params.b = flash2::CheckedInt(op, "the number of sequences", batch);
  params.seqlen_q = flash2::CheckedInt(op, "the number of queries", queries);
  params.total_q = flash2::CheckedInt(op, "the number of queries", batch * queries);
  flash2::SetCaches(&params, kcache, vcache);
  int64_t keys = kcache.shape()[1];
  params.page_block_size = 1;
  if (block_table.has_value()) {
    const Argument table(op, "block_table", *block_table);
    flash2::SetPages(&params, table, kcache, batch, k.has_value());
    keys *= table.shape()[1];
    if (cache_batch_idx.has_value() || leftpad_k.has_value()) {
      table.Fail("is given together with cache_batch_idx or leftpad_k", "one of them");
    }
  } else if (!cache_batch_idx.has_value() && kcache.shape()[0] < batch) {
    kcache.Fail("has shape " + ShapeText(kcache.shape()), "a cache for each of the " + std::to_string(batch) + " sequences of q");
  }
  params.seqlen_k = flash2::CheckedInt(op, "the number of keys", keys);
  SetNewKeys(&params, op, q, k, v, seqlens_k, rotary_cos, rotary_sin, is_rotary_interleaved, kv_heads);
  params.is_seqlens_k_cumulative = !seqlens_k.has_value();
  if (seqlens_k.has_value()) {
    params.cu_seqlens_k = flash2::CheckedInts(Argument(op, "seqlens_k", *seqlens_k), batch, "a length for each sequence");
  }
  if (leftpad_k.has_value()) {
    params.leftpad_k = flash2::CheckedInts(Argument(op, "leftpad_k", *leftpad_k), batch, "a number for each sequence");
  }
  if (cache_batch_idx.has_value()) {
    params.cache_batch_idx = flash2::CheckedInts(Argument(op, "cache_batch_idx", *cache_batch_idx), batch, "a cache for each sequence");
  }
  if (alibi_slopes.has_value()) flash2::SetAlibi(&params, Argument(op, "alibi_slopes", *alibi_slopes), batch, heads);
  flash2::SetScores(&params, softmax_scale, softcap);
  flash2::SetMask(&params, op, is_causal, window_size_left, window_size_right, keys, queries == 1 && !alibi_slopes.has_value());

  Tensor out = flash::OutputOf(op, q, out_tensor);
  Tensor lse = NewTensor<3>(q_tensor, {batch, heads, queries}, ScalarType::Float);
  if (batch == 0 || queries == 0) return {out, lse};
  if (keys == 0) return WithoutKeys(out, lse);
  params.q_batch_stride = q.strides()[0];
  params.q_row_stride = q.strides()[1];
  params.q_head_stride = q.strides()[2];
  params.o_ptr = out.data_ptr();
  params.o_batch_stride = out.strides()[0];
  params.o_row_stride = out.strides()[1];
  params.o_head_stride = out.strides()[2];
  params.softmax_lse_ptr = lse.data_ptr();
  // [batch, kv_heads, group] is [batch, heads, 1], so grouping shows nowhere.
  flash2::GroupHeads(&params, heads, kv_heads);
  const flash2::Parts parts = flash2::SetSplits(&params, op, q_tensor, num_splits);
  flash2::Run(params, k.has_value() || cache_batch_idx.has_value() || block_table.has_value());
  return {out, lse};
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_vllm_fa2_C, m) {
  m.def(
      "varlen_fwd(Tensor! q, Tensor k, Tensor v, Tensor!? out, Tensor cu_seqlens_q, Tensor cu_seqlens_k, Tensor? seqused_k, "
      "Tensor? leftpad_k, Tensor? block_table, Tensor? alibi_slopes, int max_seqlen_q, int max_seqlen_k, float p_dropout, "
      "float softmax_scale, bool zero_tensors, bool is_causal, int window_size_left, int window_size_right, float softcap, "
      "bool return_softmax, int num_splits, Tensor? gen) -> Tensor[]");
  m.def(
      "fwd_kvcache(Tensor! q, Tensor kcache, Tensor vcache, Tensor? k, Tensor? v, Tensor? seqlens_k, Tensor? rotary_cos, "
      "Tensor? rotary_sin, Tensor? cache_batch_idx, Tensor? leftpad_k, Tensor? block_table, Tensor? alibi_slopes, Tensor!? out, "
      "float softmax_scale, bool is_causal, int window_size_left, int window_size_right, float softcap, bool is_rotary_interleaved, "
      "int num_splits) -> Tensor[]");
}

VLLM_LIBRARY_IMPL(_vllm_fa2_C, m) {
  m.impl("varlen_fwd", VLLM_BOX(vllm::VarlenFwd));
  m.impl("fwd_kvcache", VLLM_BOX(vllm::FwdKvcache));
}
