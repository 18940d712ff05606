// SPDX-License-Identifier: Apache-2.0
// Upstream's ops for FlashAttention 3 (Shah et al. 2024, "FlashAttention-3: Fast and Accurate
// Attention with Asynchrony and Low-precision").
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "attention/flash3/run.h"
#include "bindings/flash3_arguments.h"
#include "bindings/flash_call.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using flash3::Params;
using torch::headeronly::ScalarType;

// Upstream's op also returns the results of the parts, which no caller uses. Here these two tensors
// are always empty.
std::vector<Tensor> MakeResults(const Tensor& out, const Tensor& lse) {
  return {out, lse, MakeTensor<1>(out, {0}, ScalarType::Float),
          MakeTensor<1>(out, {0}, ScalarType::Float)};
}

const char* const kOneMore = "one more than the number of sequences";

// The arguments of fwd, in the order of its schema, except those that only kernels for float8 read.
struct FwdArguments {
  Tensor q, k, v;
  std::optional<Tensor> k_new, v_new, q_v, out, cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new,
      seqused_q, seqused_k;
  std::optional<int64_t> max_seqlen_q, max_seqlen_k;
  std::optional<Tensor> page_table, kv_batch_idx, leftpad_k, rotary_cos, rotary_sin, seqlens_rotary;
  double softmax_scale;
  bool is_causal;
  int64_t window_size_left, window_size_right;
  double softcap;
  bool is_rotary_interleaved;
  std::optional<Tensor> scheduler_metadata;
  int64_t num_splits;
  std::optional<bool> pack_gqa;
  int64_t sm_margin;
  std::optional<Tensor> s_aux;
  int64_t cp_world_size;
  std::optional<Tensor> cp_tot_seqused_k;
};

// One call of fwd. Each step checks some of the arguments and sets the parameters of the kernel
// that follow from them.
class FwdCall {
 public:
  using Arguments = FwdArguments;

  explicit FwdCall(const FwdArguments& given)
      : given_(given),
        q_(kOp, "q", given.q),
        k_(kOp, "k", given.k),
        v_(kOp, "v", given.v),
        packed_q_(given.cu_seqlens_q.has_value()),
        packed_k_(given.cu_seqlens_k.has_value()) {}

  std::vector<Tensor> Run() {
    CheckSupported();
    CheckShapes();
    SetSequences();
    SetSizes();
    SetLengths();
    SetNewKeys();
    flash3::SetScores(&params_, given_.softmax_scale, given_.softcap);
    flash3::SetMask(&params_, given_.is_causal, given_.window_size_left, given_.window_size_right,
                    keys_);
    Tensor out = flash::TakeOrMakeOutput(kOp, q_, given_.out);
    Tensor lse =
        packed_q_
            ? MakeTensor<2>(given_.q, {params_.h, params_.total_q}, ScalarType::Float)
            : MakeTensor<3>(given_.q, {batch_, params_.h, params_.seqlen_q}, ScalarType::Float);
    if (params_.total_q == 0 || batch_ == 0) return MakeResults(out, lse);
    if (keys_ == 0 || params_.total_k == 0) {
      flash::FillWithoutKeys(out, lse, -std::numeric_limits<double>::infinity());
      return MakeResults(out, lse);
    }
    flash3::SetQueries(&params_, q_, out);
    flash3::SetKeys(&params_, k_, v_);
    params_.softmax_lse_ptr = lse.data_ptr();
    const flash3::Variant variant = ChooseVariant();
    const Tensor schedule = TakeOrMakeSchedule();
    const flash::Parts parts = flash3::SetParts(&params_, given_.q);
    flash3::Run(&params_, variant);
    return MakeResults(out, lse);
  }

 private:
  static constexpr const char* kOp = "fwd";

  void CheckSupported() {
    if (given_.q_v.has_value()) {
      FailOp(
          kOp,
          "q_v is given, expected none: kernels for values of another size than the keys are not "
          "built");
    }
    if (given_.s_aux.has_value())
      FailOp(kOp, "s_aux is given, expected none: the kernels have no attention sinks");
    if (given_.cp_world_size != 1 || given_.cp_tot_seqused_k.has_value()) {
      FailOp(kOp, "cp_world_size is " + std::to_string(given_.cp_world_size) +
                      ", or cp_tot_seqused_k is given, expected 1 and none: the kernels have no "
                      "context parallelism");
    }
    if (packed_q_ && !given_.max_seqlen_q.has_value())
      FailOp(kOp, "cu_seqlens_q is given without max_seqlen_q, expected both");
    if (packed_k_ && !given_.max_seqlen_k.has_value())
      FailOp(kOp, "cu_seqlens_k is given without max_seqlen_k, expected both");
    if (packed_k_ && (given_.page_table.has_value() || given_.kv_batch_idx.has_value())) {
      FailOp(kOp,
             "cu_seqlens_k is given together with page_table or kv_batch_idx, expected only one of "
             "them");
    }
  }

  void CheckShapes() {
    const size_t q_dims = packed_q_ ? 3 : 4, k_dims = packed_k_ ? 3 : 4;
    flash3::CheckHalves(q_, q_dims);
    flash3::CheckHalves(k_, k_dims, q_);
    flash3::CheckHalves(v_, k_dims, q_);
    v_.CheckShape(k_.shape(), "the shape of k: kernels for values of another size are not built");
    flash::CheckHeadSize(k_, q_);
    const int64_t head_size = q_.shape().back();
    flash3::SetHeads(&params_, kOp, q_.shape()[q_dims - 2], k_.shape()[k_dims - 2], head_size,
                     head_size, q_.scalar_type() == ScalarType::BFloat16);
  }

  // Sets how many sequences there are and where they begin.
  void SetSequences() {
    batch_ = q_.shape()[0];
    if (packed_q_) {
      const Argument starts(kOp, "cu_seqlens_q", *given_.cu_seqlens_q);
      batch_ = flash::CountSequences(starts);
      params_.cu_seqlens_q = flash3::CheckInts(starts, batch_ + 1, kOneMore);
    }
    params_.cu_seqlens_k =
        flash3::CheckOptionalInts(kOp, "cu_seqlens_k", given_.cu_seqlens_k, batch_ + 1, kOneMore);
    params_.kv_batch_idx = flash3::CheckOptionalInts(kOp, "kv_batch_idx", given_.kv_batch_idx,
                                                     batch_, "a cache for each sequence");
    caches_ = packed_k_ ? batch_ : k_.shape()[0];
    capacity_ = packed_k_ ? *given_.max_seqlen_k : k_.shape()[1];
    if (given_.page_table.has_value()) {
      const Argument table(kOp, "page_table", *given_.page_table);
      table.CheckOnDevice()
          .CheckDType(ScalarType::Int)
          .CheckRank(2, "[sequences, pages of the longest one]");
      flash3::SetPages(&params_, table, k_);
      caches_ = table.shape()[0];
      capacity_ *= table.shape()[1];
    }
    if (!given_.kv_batch_idx.has_value() && caches_ != batch_) {
      FailOp(kOp, "the keys have " + std::to_string(caches_) +
                      " sequences, expected the number of q, " + std::to_string(batch_));
    }
  }

  void SetSizes() {
    const int64_t queries = packed_q_ ? q_.shape()[0] : batch_ * q_.shape()[1];
    const int64_t keys = packed_k_ ? k_.shape()[0] : k_.shape()[0] * k_.shape()[1];
    params_.b = flash3::CheckInt(kOp, "the number of sequences", batch_);
    params_.b_k = flash3::CheckInt(kOp, "the number of caches", caches_);
    params_.seqlen_q = flash3::CheckInt(kOp, "the number of queries",
                                        packed_q_ ? *given_.max_seqlen_q : q_.shape()[1]);
    params_.total_q = flash3::CheckInt(kOp, "the number of queries", queries);
    params_.seqlen_k = flash3::CheckInt(kOp, "the number of keys", capacity_);
    params_.total_k = flash3::CheckInt(kOp, "the number of keys", keys);
  }

  void SetLengths() {
    params_.seqused_q = flash3::CheckOptionalInts(kOp, "seqused_q", given_.seqused_q, batch_,
                                                  "a length for each sequence");
    params_.seqused_k = flash3::CheckOptionalInts(kOp, "seqused_k", given_.seqused_k, batch_,
                                                  "a length for each sequence");
    params_.leftpad_k = flash3::CheckOptionalInts(kOp, "leftpad_k", given_.leftpad_k, batch_,
                                                  "a number for each sequence");
  }

  void SetNewKeys() {
    flash3::SetNewKeys(&params_, kOp, q_,
                       {given_.k_new, given_.v_new, given_.cu_seqlens_k_new, given_.rotary_cos,
                        given_.rotary_sin, given_.seqlens_rotary, given_.is_rotary_interleaved});
    // The caller's max_seqlen_k does not include new keys.
    keys_ = params_.knew_ptr == nullptr
                ? std::min(given_.max_seqlen_k.value_or(capacity_), capacity_)
                : params_.seqlen_k;
  }

  flash3::Variant ChooseVariant() {
    flash3::SetDevice(&params_, kOp, given_.sm_margin);
    const flash3::Variant variant =
        flash3::Choose(&params_, kOp, keys_, given_.num_splits, given_.pack_gqa);
    if (params_.knew_ptr != nullptr && !flash3::CanAppend(params_, variant)) {
      FailOp(kOp, "k_new is given, and the kernel for " +
                      flash3::DescribeVariant(params_, variant) +
                      " of this library cannot append keys, expected a library built with "
                      "VLLM_FA_SET=full");
    }
    return variant;
  }

  // Returns the memory of the schedule. The caller keeps it until the kernel is queued.
  Tensor TakeOrMakeSchedule() {
    const int64_t numbers = flash3::GetScheduleSize(params_);
    const bool taken = given_.scheduler_metadata.has_value();
    Tensor schedule =
        taken ? *given_.scheduler_metadata : MakeTensor<1>(given_.q, {numbers}, ScalarType::Int);
    params_.skip_scheduler_metadata_computation = taken;
    const Argument argument(kOp, "scheduler_metadata", schedule);
    flash3::PlaceSchedule(
        &params_, flash3::CheckInts(argument, numbers,
                                    "the result of get_scheduler_metadata for these sequences"));
    return schedule;
  }

  const FwdArguments& given_;
  const Argument q_, k_, v_;
  const bool packed_q_, packed_k_;  // sequences are concatenated, [total, heads, head_size]
  int64_t batch_ = 0, caches_ = 0;  // sequences of queries, and of keys
  int64_t capacity_ = 0;            // keys for which each sequence has room
  int64_t keys_ = 0;                // of the longest sequence, at most
  Params params_{};
};

// The arguments of get_scheduler_metadata, in the order of its schema.
struct ScheduleArguments {
  int64_t batch_size, max_seqlen_q, max_seqlen_k, num_heads, num_heads_k, headdim, headdim_v;
  ScalarType qkv_dtype;
  Tensor seqused_k;
  std::optional<Tensor> cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new, seqused_q, leftpad_k;
  std::optional<int64_t> page_size;
  int64_t max_seqlen_k_new;
  bool is_causal;
  int64_t window_size_left, window_size_right;
  bool has_softcap;
  int64_t num_splits;
  std::optional<bool> pack_gqa;
  int64_t sm_margin;
};

// One call of get_scheduler_metadata, which determines how `fwd` will divide the work over keys of
// these lengths. Arguments that both ops have must be the same in both calls.
class ScheduleCall {
 public:
  using Arguments = ScheduleArguments;

  explicit ScheduleCall(const ScheduleArguments& given) : given_(given) {}

  Tensor Run() {
    SetSizes();
    SetLengths();
    MarkPagesAndNewKeys();
    flash3::SetScores(&params_, 1.0, given_.has_softcap ? 1.0 : 0.0);
    flash3::SetMask(&params_, given_.is_causal, given_.window_size_left, given_.window_size_right,
                    given_.max_seqlen_k);
    Tensor schedule =
        MakeTensor<1>(given_.seqused_k, {flash3::GetScheduleSize(params_)}, ScalarType::Int);
    if (given_.batch_size == 0) {
      torch::stable::zero_(schedule);
      return schedule;
    }
    flash3::SetDevice(&params_, kOp, given_.sm_margin);
    const flash3::Variant variant =
        flash3::Choose(&params_, kOp, given_.max_seqlen_k, given_.num_splits, given_.pack_gqa);
    flash3::PlaceSchedule(&params_, static_cast<int*>(schedule.data_ptr()));
    const flash3::Tile tile = flash3::GetTile(params_, variant.paged);
    flash3::DivideWork(&params_, tile.rows, tile.keys);
    return schedule;
  }

 private:
  static constexpr const char* kOp = "get_scheduler_metadata";

  void SetSizes() {
    CheckDType(kOp, "qkv_dtype", given_.qkv_dtype, {ScalarType::BFloat16, ScalarType::Half});
    flash3::SetHeads(&params_, kOp, given_.num_heads, given_.num_heads_k, given_.headdim,
                     given_.headdim_v, given_.qkv_dtype == ScalarType::BFloat16);
    params_.b = flash3::CheckInt(kOp, "batch_size", given_.batch_size);
    params_.seqlen_q = flash3::CheckInt(kOp, "max_seqlen_q", given_.max_seqlen_q);
    params_.seqlen_k = flash3::CheckInt(kOp, "max_seqlen_k", given_.max_seqlen_k);
    params_.seqlen_knew = flash3::CheckInt(kOp, "max_seqlen_k_new", given_.max_seqlen_k_new);
  }

  void SetLengths() {
    const int64_t batch = given_.batch_size;
    const char* each = "a length for each sequence";
    params_.seqused_k =
        flash3::CheckInts(Argument(kOp, "seqused_k", given_.seqused_k), batch, each);
    params_.cu_seqlens_q =
        flash3::CheckOptionalInts(kOp, "cu_seqlens_q", given_.cu_seqlens_q, batch + 1, kOneMore);
    params_.cu_seqlens_k =
        flash3::CheckOptionalInts(kOp, "cu_seqlens_k", given_.cu_seqlens_k, batch + 1, kOneMore);
    params_.cu_seqlens_knew = flash3::CheckOptionalInts(
        kOp, "cu_seqlens_k_new", given_.cu_seqlens_k_new, batch + 1, kOneMore);
    params_.seqused_q = flash3::CheckOptionalInts(kOp, "seqused_q", given_.seqused_q, batch, each);
    params_.leftpad_k = flash3::CheckOptionalInts(kOp, "leftpad_k", given_.leftpad_k, batch,
                                                  "a number for each sequence");
  }

  // Only the presence of pages and new keys matters here: the pointers are not read.
  void MarkPagesAndNewKeys() {
    if (given_.max_seqlen_k_new > 0) params_.knew_ptr = params_.seqused_k;
    if (!given_.page_size.has_value()) return;
    params_.page_size = flash3::CheckInt(kOp, "page_size", *given_.page_size);
    CheckAtLeast(kOp, "page_size", params_.page_size, 1);
    params_.page_table = params_.seqused_k;
  }

  const ScheduleArguments& given_;
  Params params_{};
};

std::vector<Tensor> Fwd(Tensor q, Tensor k, Tensor v, std::optional<Tensor> k_new,
                        std::optional<Tensor> v_new, std::optional<Tensor> q_v,
                        std::optional<Tensor> out, std::optional<Tensor> cu_seqlens_q,
                        std::optional<Tensor> cu_seqlens_k, std::optional<Tensor> cu_seqlens_k_new,
                        std::optional<Tensor> seqused_q, std::optional<Tensor> seqused_k,
                        std::optional<int64_t> max_seqlen_q, std::optional<int64_t> max_seqlen_k,
                        std::optional<Tensor> page_table, std::optional<Tensor> kv_batch_idx,
                        std::optional<Tensor> leftpad_k, std::optional<Tensor> rotary_cos,
                        std::optional<Tensor> rotary_sin, std::optional<Tensor> seqlens_rotary,
                        std::optional<Tensor> /*q_descale*/, std::optional<Tensor> /*k_descale*/,
                        std::optional<Tensor> /*v_descale*/, double softmax_scale, bool is_causal,
                        int64_t window_size_left, int64_t window_size_right, double softcap,
                        bool is_rotary_interleaved, std::optional<Tensor> scheduler_metadata,
                        int64_t num_splits, std::optional<bool> pack_gqa, int64_t sm_margin,
                        std::optional<Tensor> s_aux, int64_t cp_world_size, int64_t /*cp_rank*/,
                        std::optional<Tensor> cp_tot_seqused_k) {
  return flash::RunCall<FwdCall>(
      q, k, v, k_new, v_new, q_v, out, cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new, seqused_q,
      seqused_k, max_seqlen_q, max_seqlen_k, page_table, kv_batch_idx, leftpad_k, rotary_cos,
      rotary_sin, seqlens_rotary, softmax_scale, is_causal, window_size_left, window_size_right,
      softcap, is_rotary_interleaved, scheduler_metadata, num_splits, pack_gqa, sm_margin, s_aux,
      cp_world_size, cp_tot_seqused_k);
}

Tensor GetSchedulerMetadata(int64_t batch_size, int64_t max_seqlen_q, int64_t max_seqlen_k,
                            int64_t num_heads, int64_t num_heads_k, int64_t headdim,
                            int64_t headdim_v, ScalarType qkv_dtype, Tensor seqused_k,
                            std::optional<Tensor> cu_seqlens_q, std::optional<Tensor> cu_seqlens_k,
                            std::optional<Tensor> cu_seqlens_k_new, std::optional<Tensor> seqused_q,
                            std::optional<Tensor> leftpad_k, std::optional<int64_t> page_size,
                            int64_t max_seqlen_k_new, bool is_causal, int64_t window_size_left,
                            int64_t window_size_right, bool has_softcap, int64_t num_splits,
                            std::optional<bool> pack_gqa, int64_t sm_margin) {
  return flash::RunCall<ScheduleCall>(
      batch_size, max_seqlen_q, max_seqlen_k, num_heads, num_heads_k, headdim, headdim_v, qkv_dtype,
      seqused_k, cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new, seqused_q, leftpad_k, page_size,
      max_seqlen_k_new, is_causal, window_size_left, window_size_right, has_softcap, num_splits,
      pack_gqa, sm_margin);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_vllm_fa3_C, m) {
  m.def(
      "fwd(Tensor! q, Tensor k, Tensor v, Tensor? k_new, Tensor? v_new, Tensor? q_v, Tensor!? out, "
      "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? cu_seqlens_k_new, Tensor? seqused_q, "
      "Tensor? seqused_k, int? max_seqlen_q, int? max_seqlen_k, Tensor? page_table, Tensor? "
      "kv_batch_idx, Tensor? leftpad_k, Tensor? rotary_cos, Tensor? rotary_sin, Tensor? "
      "seqlens_rotary, Tensor? q_descale, Tensor? k_descale, Tensor? v_descale, float "
      "softmax_scale, bool is_causal, int window_size_left, int window_size_right, float softcap, "
      "bool is_rotary_interleaved, Tensor? scheduler_metadata, int num_splits, bool? pack_gqa, int "
      "sm_margin, Tensor? s_aux, int cp_world_size, int cp_rank, Tensor? cp_tot_seqused_k) -> "
      "Tensor[]");
  m.def(
      "get_scheduler_metadata(int batch_size, int max_seqlen_q, int max_seqlen_k, int num_heads, "
      "int num_heads_k, int headdim, int headdim_v, ScalarType qkv_dtype, Tensor seqused_k, "
      "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? cu_seqlens_k_new, Tensor? seqused_q, "
      "Tensor? leftpad_k, int? page_size, int max_seqlen_k_new, bool is_causal, int "
      "window_size_left, int window_size_right, bool has_softcap, int num_splits, bool? pack_gqa, "
      "int sm_margin) -> Tensor");
}

VLLM_LIBRARY_IMPL(_vllm_fa3_C, m) {
  m.impl("fwd", VLLM_BOX(vllm::Fwd));
  m.impl("get_scheduler_metadata", VLLM_BOX(vllm::GetSchedulerMetadata));
}
