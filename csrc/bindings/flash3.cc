// SPDX-License-Identifier: Apache-2.0
// FlashAttention 3 (Shah et al. 2024, "FlashAttention-3: Fast and Accurate Attention with Asynchrony and Low-precision") behind upstream's
// op.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "attention/flash3/run.h"
#include "bindings/flash3_arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using flash3::FailOp;
using flash3::Params;
using torch::headeronly::ScalarType;

constexpr const char* kOp = "fwd";

// Upstream's op returns what the parts gave as well, for nobody; here these two are always empty.
std::vector<Tensor> Results(const Tensor& out, const Tensor& lse) {
  return {out, lse, NewTensor<1>(out, {0}, ScalarType::Float), NewTensor<1>(out, {0}, ScalarType::Float)};
}

// The extents that follow from the shapes of q and k, which are checked here.
//   packed_q, packed_k    sequences lie one behind the other, [total, heads, head_size]
struct Layout {
  bool packed_q, packed_k;
  int64_t batch, keys;
};

Layout SetLayout(Params* params, const Argument& q, const Argument& k, const Argument& v, const std::optional<Tensor>& cu_seqlens_q,
                 const std::optional<Tensor>& cu_seqlens_k, const std::optional<Tensor>& page_table,
                 const std::optional<Tensor>& kv_batch_idx, std::optional<int64_t> max_seqlen_q, std::optional<int64_t> max_seqlen_k) {
  const bool packed_q = cu_seqlens_q.has_value(), packed_k = cu_seqlens_k.has_value();
  if (packed_q && !max_seqlen_q.has_value()) FailOp(kOp, "cu_seqlens_q is given without max_seqlen_q, expected both");
  if (packed_k && !max_seqlen_k.has_value()) FailOp(kOp, "cu_seqlens_k is given without max_seqlen_k, expected both");
  if (packed_k && (page_table.has_value() || kv_batch_idx.has_value())) {
    FailOp(kOp, "cu_seqlens_k is given together with page_table or kv_batch_idx, expected one of them");
  }
  const size_t q_dims = packed_q ? 3 : 4, k_dims = packed_k ? 3 : 4;
  flash3::CheckMatrix(q, q_dims);
  flash3::CheckMatrix(k, k_dims, q);
  flash3::CheckMatrix(v, k_dims, q);
  v.HasShape(k.shape(), "the shape of k: kernels for values of another size are not built");
  const int64_t head_size = q.shape().back();
  if (k.shape().back() != head_size) k.Fail("has shape " + ShapeText(k.shape()), "the head size of q, " + std::to_string(head_size));
  flash3::SetHeads(params, kOp, q.shape()[q_dims - 2], k.shape()[k_dims - 2], head_size, head_size,
                   q.tensor().scalar_type() == ScalarType::BFloat16);

  int64_t batch = q.shape()[0];
  if (packed_q) {
    const Argument starts(kOp, "cu_seqlens_q", *cu_seqlens_q);
    if (starts.shape().size() != 1 || starts.shape()[0] < 1) starts.Fail("has shape " + ShapeText(starts.shape()), "[sequences + 1]");
    batch = starts.shape()[0] - 1;
    params->cu_seqlens_q = flash3::CheckedInts(starts, batch + 1, "one more than there are sequences");
  }
  params->cu_seqlens_k = flash3::OptionalInts(kOp, "cu_seqlens_k", cu_seqlens_k, batch + 1, "one more than there are sequences");
  params->kv_batch_idx = flash3::OptionalInts(kOp, "kv_batch_idx", kv_batch_idx, batch, "a cache for each sequence");

  // Sequences of keys, and rows that each has room for.
  int64_t caches = k.shape()[0], capacity = packed_k ? *max_seqlen_k : k.shape()[1];
  if (packed_k) caches = batch;
  if (page_table.has_value()) {
    const Argument table(kOp, "page_table", *page_table);
    table.OnDevice().OfDType(ScalarType::Int);
    if (table.shape().size() != 2) table.Fail("has shape " + ShapeText(table.shape()), "[sequences, pages of the longest one]");
    flash3::SetPages(params, table, k);
    caches = table.shape()[0];
    capacity *= table.shape()[1];
  }
  if (!kv_batch_idx.has_value() && caches != batch) {
    FailOp(kOp, "there are keys of " + std::to_string(caches) + " sequences, expected those of the " + std::to_string(batch) + " of q");
  }
  params->b = flash3::CheckedInt(kOp, "the number of sequences", batch);
  params->b_k = flash3::CheckedInt(kOp, "the number of caches", caches);
  params->seqlen_q = flash3::CheckedInt(kOp, "the number of queries", packed_q ? *max_seqlen_q : q.shape()[1]);
  params->total_q = flash3::CheckedInt(kOp, "the number of queries", packed_q ? q.shape()[0] : batch * q.shape()[1]);
  params->seqlen_k = flash3::CheckedInt(kOp, "the number of keys", capacity);
  params->total_k = flash3::CheckedInt(kOp, "the number of keys", packed_k ? k.shape()[0] : k.shape()[0] * k.shape()[1]);
  const int64_t keys = max_seqlen_k.has_value() ? std::min(*max_seqlen_k, capacity) : capacity;
  return {packed_q, packed_k, batch, keys};
}

std::vector<Tensor> Fwd(Tensor q_tensor, Tensor k_tensor, Tensor v_tensor, std::optional<Tensor> k_new, std::optional<Tensor> v_new,
                        std::optional<Tensor> q_v, std::optional<Tensor> out_tensor, std::optional<Tensor> cu_seqlens_q,
                        std::optional<Tensor> cu_seqlens_k, std::optional<Tensor> cu_seqlens_k_new, std::optional<Tensor> seqused_q,
                        std::optional<Tensor> seqused_k, std::optional<int64_t> max_seqlen_q, std::optional<int64_t> max_seqlen_k,
                        std::optional<Tensor> page_table, std::optional<Tensor> kv_batch_idx, std::optional<Tensor> leftpad_k,
                        std::optional<Tensor> rotary_cos, std::optional<Tensor> rotary_sin, std::optional<Tensor> seqlens_rotary,
                        std::optional<Tensor> /*q_descale*/, std::optional<Tensor> /*k_descale*/, std::optional<Tensor> /*v_descale*/,
                        double softmax_scale, bool is_causal, int64_t window_size_left, int64_t window_size_right, double softcap,
                        bool is_rotary_interleaved, std::optional<Tensor> scheduler_metadata, int64_t num_splits,
                        std::optional<bool> pack_gqa, int64_t sm_margin, std::optional<Tensor> s_aux, int64_t cp_world_size,
                        int64_t /*cp_rank*/, std::optional<Tensor> cp_tot_seqused_k) {
  if (q_v.has_value()) FailOp(kOp, "q_v is given, expected none: kernels for values of another size than keys are not built");
  if (s_aux.has_value()) FailOp(kOp, "s_aux is given, expected none: the kernels have no attention sinks");
  if (cp_world_size != 1 || cp_tot_seqused_k.has_value()) {
    FailOp(kOp, "cp_world_size is " + std::to_string(cp_world_size) +
                    ", or cp_tot_seqused_k is given, expected 1 and none: the kernels have no context parallelism");
  }
  const Argument q(kOp, "q", q_tensor), k(kOp, "k", k_tensor), v(kOp, "v", v_tensor);
  Params params{};
  const Layout layout = SetLayout(&params, q, k, v, cu_seqlens_q, cu_seqlens_k, page_table, kv_batch_idx, max_seqlen_q, max_seqlen_k);
  const int64_t batch = layout.batch, heads = params.h;
  params.seqused_q = flash3::OptionalInts(kOp, "seqused_q", seqused_q, batch, "a length for each sequence");
  params.seqused_k = flash3::OptionalInts(kOp, "seqused_k", seqused_k, batch, "a length for each sequence");
  params.leftpad_k = flash3::OptionalInts(kOp, "leftpad_k", leftpad_k, batch, "a number for each sequence");
  flash3::SetNewKeys(&params, kOp, q, {k_new, v_new, cu_seqlens_k_new, rotary_cos, rotary_sin, seqlens_rotary, is_rotary_interleaved});
  flash3::SetScores(&params, softmax_scale, softcap);
  // New keys come on top of those that the caller counts.
  const int64_t keys = params.knew_ptr == nullptr ? layout.keys : params.seqlen_k;
  flash3::SetMask(&params, is_causal, window_size_left, window_size_right, keys);

  Tensor out = flash::OutputOf(kOp, q, out_tensor);
  Tensor lse = layout.packed_q ? NewTensor<2>(q_tensor, {heads, params.total_q}, ScalarType::Float)
                               : NewTensor<3>(q_tensor, {batch, heads, params.seqlen_q}, ScalarType::Float);
  if (params.total_q == 0 || batch == 0) return Results(out, lse);
  if (keys == 0 || params.total_k == 0) {
    torch::stable::zero_(out);
    torch::stable::fill_(lse, -std::numeric_limits<double>::infinity());
    return Results(out, lse);
  }
  flash3::SetQueries(&params, q, out);
  flash3::SetKeys(&params, k, v);
  params.softmax_lse_ptr = lse.data_ptr();
  flash3::SetDevice(&params, kOp, sm_margin);
  const flash3::Variant variant = flash3::Choose(&params, kOp, keys, num_splits, pack_gqa);
  if (params.knew_ptr != nullptr && !flash3::Appends(params, variant)) {
    FailOp(kOp, "k_new is given, and the kernel for " + flash3::VariantText(params, variant) +
                    " of this library appends no keys; built with VLLM_FA_SET=full it does");
  }

  const int64_t numbers = flash3::ScheduleSize(params);
  Tensor schedule = scheduler_metadata.has_value() ? *scheduler_metadata : NewTensor<1>(q_tensor, {numbers}, ScalarType::Int);
  params.skip_scheduler_metadata_computation = scheduler_metadata.has_value();
  flash3::PlaceSchedule(&params, flash3::CheckedInts(Argument(kOp, "scheduler_metadata", schedule), numbers,
                                                     "what get_scheduler_metadata gives for these sequences"));
  const flash3::Parts parts = flash3::SetParts(&params, q_tensor);
  flash3::Run(&params, variant);
  return Results(out, lse);
}

// How `fwd` will divide the work over keys of these lengths. Everything that is given to both is the same there.
Tensor GetSchedulerMetadata(int64_t batch_size, int64_t max_seqlen_q, int64_t max_seqlen_k, int64_t num_heads, int64_t num_heads_k,
                            int64_t headdim, int64_t headdim_v, ScalarType qkv_dtype, Tensor seqused_k, std::optional<Tensor> cu_seqlens_q,
                            std::optional<Tensor> cu_seqlens_k, std::optional<Tensor> cu_seqlens_k_new, std::optional<Tensor> seqused_q,
                            std::optional<Tensor> leftpad_k, std::optional<int64_t> page_size, int64_t max_seqlen_k_new, bool is_causal,
                            int64_t window_size_left, int64_t window_size_right, bool has_softcap, int64_t num_splits,
                            std::optional<bool> pack_gqa, int64_t sm_margin) {
  const char* op = "get_scheduler_metadata";
  if (qkv_dtype != ScalarType::BFloat16 && qkv_dtype != ScalarType::Half) {
    FailOp(op, std::string("qkv_dtype is ") + torch::headeronly::toString(qkv_dtype) + ", expected BFloat16 or Half");
  }
  Params params{};
  flash3::SetHeads(&params, op, num_heads, num_heads_k, headdim, headdim_v, qkv_dtype == ScalarType::BFloat16);
  params.b = flash3::CheckedInt(op, "batch_size", batch_size);
  params.seqlen_q = flash3::CheckedInt(op, "max_seqlen_q", max_seqlen_q);
  params.seqlen_k = flash3::CheckedInt(op, "max_seqlen_k", max_seqlen_k);
  params.seqlen_knew = flash3::CheckedInt(op, "max_seqlen_k_new", max_seqlen_k_new);
  params.seqused_k = flash3::CheckedInts(Argument(op, "seqused_k", seqused_k), batch_size, "a length for each sequence");
  params.cu_seqlens_q = flash3::OptionalInts(op, "cu_seqlens_q", cu_seqlens_q, batch_size + 1, "one more than there are sequences");
  params.cu_seqlens_k = flash3::OptionalInts(op, "cu_seqlens_k", cu_seqlens_k, batch_size + 1, "one more than there are sequences");
  params.cu_seqlens_knew =
      flash3::OptionalInts(op, "cu_seqlens_k_new", cu_seqlens_k_new, batch_size + 1, "one more than there are sequences");
  params.seqused_q = flash3::OptionalInts(op, "seqused_q", seqused_q, batch_size, "a length for each sequence");
  params.leftpad_k = flash3::OptionalInts(op, "leftpad_k", leftpad_k, batch_size, "a number for each sequence");
  // That there are pages and new keys matters here, not where they are: no one reads these.
  if (max_seqlen_k_new > 0) params.knew_ptr = params.seqused_k;
  if (page_size.has_value()) {
    params.page_size = flash3::CheckedInt(op, "page_size", *page_size);
    if (params.page_size < 1) FailOp(op, "page_size is 0, expected at least 1");
    params.page_table = params.seqused_k;
  }
  flash3::SetScores(&params, 1.0, has_softcap ? 1.0 : 0.0);
  flash3::SetMask(&params, is_causal, window_size_left, window_size_right, max_seqlen_k);
  Tensor schedule = NewTensor<1>(seqused_k, {flash3::ScheduleSize(params)}, ScalarType::Int);
  if (batch_size == 0) {
    torch::stable::zero_(schedule);
    return schedule;
  }
  flash3::SetDevice(&params, op, sm_margin);
  const flash3::Variant variant = flash3::Choose(&params, op, max_seqlen_k, num_splits, pack_gqa);
  flash3::PlaceSchedule(&params, static_cast<int*>(schedule.data_ptr()));
  const flash3::Tile tile = flash3::TileOf(params, variant.paged);
  flash3::Divide(&params, tile.rows, tile.keys);
  return schedule;
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_vllm_fa3_C, m) {
  m.def(
      "fwd(Tensor! q, Tensor k, Tensor v, Tensor? k_new, Tensor? v_new, Tensor? q_v, Tensor!? out, Tensor? cu_seqlens_q, "
      "Tensor? cu_seqlens_k, Tensor? cu_seqlens_k_new, Tensor? seqused_q, Tensor? seqused_k, int? max_seqlen_q, int? max_seqlen_k, "
      "Tensor? page_table, Tensor? kv_batch_idx, Tensor? leftpad_k, Tensor? rotary_cos, Tensor? rotary_sin, Tensor? seqlens_rotary, "
      "Tensor? q_descale, Tensor? k_descale, Tensor? v_descale, float softmax_scale, bool is_causal, int window_size_left, "
      "int window_size_right, float softcap, bool is_rotary_interleaved, Tensor? scheduler_metadata, int num_splits, bool? pack_gqa, "
      "int sm_margin, Tensor? s_aux, int cp_world_size, int cp_rank, Tensor? cp_tot_seqused_k) -> Tensor[]");
  m.def(
      "get_scheduler_metadata(int batch_size, int max_seqlen_q, int max_seqlen_k, int num_heads, int num_heads_k, int headdim, "
      "int headdim_v, ScalarType qkv_dtype, Tensor seqused_k, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? cu_seqlens_k_new, "
      "Tensor? seqused_q, Tensor? leftpad_k, int? page_size, int max_seqlen_k_new, bool is_causal, int window_size_left, "
      "int window_size_right, bool has_softcap, int num_splits, bool? pack_gqa, int sm_margin) -> Tensor");
}

VLLM_LIBRARY_IMPL(_vllm_fa3_C, m) {
  m.impl("fwd", VLLM_BOX(vllm::Fwd));
  m.impl("get_scheduler_metadata", VLLM_BOX(vllm::GetSchedulerMetadata));
}
