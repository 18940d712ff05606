// SPDX-License-Identifier: Apache-2.0
// Upstream's ops for FlashAttention 2 (Dao 2023, "FlashAttention-2: Faster Attention with Better
// Parallelism and Work Partitioning").
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "attention/flash2/run.h"
#include "bindings/flash2_arguments.h"
#include "bindings/flash_call.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using flash2::Params;
using torch::headeronly::ScalarType;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The arguments of varlen_fwd, in the order of its schema.
struct VarlenArguments {
  Tensor q, k, v;
  std::optional<Tensor> out;
  Tensor cu_seqlens_q, cu_seqlens_k;
  std::optional<Tensor> seqused_k, leftpad_k, block_table, alibi_slopes;
  int64_t max_seqlen_q, max_seqlen_k;
  double p_dropout, softmax_scale;
  bool zero_tensors, is_causal;
  int64_t window_size_left, window_size_right;
  double softcap;
  bool return_softmax;
  int64_t num_splits;
};

// One call of varlen_fwd. Each step checks some of the arguments and sets the parameters of the
// kernel that follow from them.
class VarlenCall {
 public:
  using Arguments = VarlenArguments;

  explicit VarlenCall(const VarlenArguments& given)
      : given_(given),
        q_(kOp, "q", given.q),
        k_(kOp, "k", given.k),
        v_(kOp, "v", given.v),
        paged_(given.block_table.has_value()) {}

  std::vector<Tensor> Run() {
    if (given_.p_dropout != 0 || given_.return_softmax) {
      FailOp(kOp, "p_dropout or return_softmax is set, expected neither: dropout is not supported");
    }
    CheckShapes();
    SetSizes();
    SetLengths();
    SetKeys();
    SetScoresAndMask();
    Tensor out = flash::TakeOrMakeOutput(kOp, q_, given_.out);
    Tensor lse = MakeTensor<2>(given_.q, {heads_, total_q_}, ScalarType::Float);
    if (total_q_ == 0 || batch_ == 0) return {out, lse};
    if (given_.max_seqlen_k == 0) {
      flash::FillWithoutKeys(out, lse, kInfinity);
      return {out, lse};
    }
    if (given_.zero_tensors) {
      torch::stable::zero_(out);
      torch::stable::fill_(lse, -kInfinity);
    }
    SetQueriesAndOutput(out, lse);
    const flash::Parts parts = GroupAndSplit();
    flash2::Run(params_, paged_);
    return {out, lse};
  }

 private:
  static constexpr const char* kOp = "varlen_fwd";

  void CheckShapes() {
    const size_t dims = paged_ ? 4 : 3;
    flash2::CheckHalves(q_, 3);
    flash2::CheckHalves(k_, dims, q_);
    flash2::CheckHalves(v_, dims, q_);
    v_.CheckShape(k_.shape(), "the shape of k");
    flash::CheckHeadSize(k_, q_);
    total_q_ = q_.shape()[0];
    heads_ = q_.shape()[1];
    kv_heads_ = k_.shape()[dims - 2];
    batch_ = flash::CountSequences(Argument(kOp, "cu_seqlens_q", given_.cu_seqlens_q));
  }

  void SetSizes() {
    flash2::SetHeads(&params_, q_, kv_heads_, k_);
    params_.b = flash2::CheckInt(kOp, "the number of sequences", batch_);
    params_.seqlen_q = flash2::CheckInt(kOp, "max_seqlen_q", given_.max_seqlen_q);
    params_.seqlen_k = flash2::CheckInt(kOp, "max_seqlen_k", given_.max_seqlen_k);
    params_.total_q = flash2::CheckInt(kOp, "the number of queries", total_q_);
  }

  // Sets where the sequences of queries and keys begin, and their lengths.
  void SetLengths() {
    const char* why = "one more than the number of sequences";
    params_.cu_seqlens_q =
        flash2::CheckInts(Argument(kOp, "cu_seqlens_q", given_.cu_seqlens_q), batch_ + 1, why);
    params_.cu_seqlens_k =
        flash2::CheckInts(Argument(kOp, "cu_seqlens_k", given_.cu_seqlens_k), batch_ + 1, why);
    params_.is_seqlens_k_cumulative = true;
    if (given_.seqused_k.has_value()) {
      params_.seqused_k = flash2::CheckInts(Argument(kOp, "seqused_k", *given_.seqused_k), batch_,
                                            "a length for each sequence");
    }
    if (paged_ && given_.seqused_k.has_value()) {
      // The table says where the keys are and seqused_k how many; callers that pass both may pass
      // anything as cu_seqlens_k.
      params_.cu_seqlens_k = params_.seqused_k;
      params_.is_seqlens_k_cumulative = false;
    }
    if (given_.leftpad_k.has_value()) {
      const Argument leftpad(kOp, "leftpad_k", *given_.leftpad_k);
      if (paged_) leftpad.Fail("is given together with block_table", "only one of them");
      params_.leftpad_k = flash2::CheckInts(leftpad, batch_, "a number for each sequence");
    }
  }

  void SetKeys() {
    if (paged_) {
      flash2::SetCaches(&params_, k_, v_);
      flash2::SetPages(&params_, Argument(kOp, "block_table", *given_.block_table), k_, batch_,
                       false);
      return;
    }
    params_.k_ptr = k_.tensor().data_ptr();
    params_.v_ptr = v_.tensor().data_ptr();
    params_.k_row_stride = k_.strides()[0];
    params_.v_row_stride = v_.strides()[0];
    params_.k_head_stride = k_.strides()[1];
    params_.v_head_stride = v_.strides()[1];
    params_.page_block_size = 1;
  }

  void SetScoresAndMask() {
    const bool alibi = given_.alibi_slopes.has_value();
    if (alibi)
      flash2::SetAlibi(&params_, Argument(kOp, "alibi_slopes", *given_.alibi_slopes), batch_,
                       heads_);
    flash2::SetScores(&params_, given_.softmax_scale, given_.softcap);
    flash2::SetMask(&params_, kOp, given_.is_causal, given_.window_size_left,
                    given_.window_size_right, given_.max_seqlen_k,
                    given_.max_seqlen_q == 1 && !alibi);
  }

  void SetQueriesAndOutput(const Tensor& out, const Tensor& lse) {
    params_.q_row_stride = q_.strides()[0];
    params_.q_head_stride = q_.strides()[1];
    params_.o_ptr = out.data_ptr();
    params_.o_row_stride = out.strides()[0];
    params_.o_head_stride = out.strides()[1];
    params_.softmax_lse_ptr = lse.data_ptr();
    params_.unpadded_lse = true;
  }

  // If each sequence has one query, the query's position follows from the sequence, so heads can be
  // grouped and keys can be split.
  flash::Parts GroupAndSplit() {
    if (given_.max_seqlen_q == 1 && total_q_ == batch_) {
      params_.cu_seqlens_q = nullptr;
      params_.q_batch_stride = params_.q_row_stride;
      params_.o_batch_stride = params_.o_row_stride;
      params_.seqlenq_ngroups_swapped = flash2::GroupHeads(&params_, heads_, kv_heads_);
      return flash2::SetSplits(&params_, kOp, given_.q, given_.num_splits);
    }
    params_.h = static_cast<int>(heads_);
    params_.h_k = static_cast<int>(kv_heads_);
    params_.h_h_k_ratio = params_.h / params_.h_k;
    params_.num_splits = 1;
    return {};
  }

  const VarlenArguments& given_;
  const Argument q_, k_, v_;
  const bool paged_;
  int64_t batch_ = 0, total_q_ = 0, heads_ = 0, kv_heads_ = 0;
  Params params_{};
};

// The arguments of fwd_kvcache, in the order of its schema.
struct KvcacheArguments {
  Tensor q, kcache, vcache;
  std::optional<Tensor> k, v, seqlens_k, rotary_cos, rotary_sin, cache_batch_idx, leftpad_k,
      block_table, alibi_slopes, out;
  double softmax_scale;
  bool is_causal;
  int64_t window_size_left, window_size_right;
  double softcap;
  bool is_rotary_interleaved;
  int64_t num_splits;
};

// One call of fwd_kvcache, in the same kind of steps as VarlenCall.
class KvcacheCall {
 public:
  using Arguments = KvcacheArguments;

  explicit KvcacheCall(const KvcacheArguments& given)
      : given_(given),
        q_(kOp, "q", given.q),
        kcache_(kOp, "kcache", given.kcache),
        vcache_(kOp, "vcache", given.vcache) {}

  std::vector<Tensor> Run() {
    CheckShapes();
    SetSizes();
    SetCacheAndPages();
    flash::CheckBothOrNeither(kOp, "rotary_cos", given_.rotary_cos, "rotary_sin",
                              given_.rotary_sin);
    flash::CheckBothOrNeither(kOp, "k", given_.k, "v", given_.v);
    if (given_.k.has_value()) {
      SetNewKeys();
    } else if (given_.rotary_cos.has_value()) {
      FailOp(kOp, "rotary_cos is given without k, expected new keys to rotate");
    }
    SetLengths();
    SetScoresAndMask();
    Tensor out = flash::TakeOrMakeOutput(kOp, q_, given_.out);
    Tensor lse = MakeTensor<3>(given_.q, {batch_, heads_, queries_}, ScalarType::Float);
    if (batch_ == 0 || queries_ == 0) return {out, lse};
    if (keys_ == 0) {
      flash::FillWithoutKeys(out, lse, kInfinity);
      return {out, lse};
    }
    SetQueriesAndOutput(out, lse);
    // In memory, [batch, kv_heads, group] is the same as [batch, heads, 1], so grouping does not
    // change the result.
    flash2::GroupHeads(&params_, heads_, kv_heads_);
    const flash::Parts parts = flash2::SetSplits(&params_, kOp, given_.q, given_.num_splits);
    flash2::Run(params_, given_.k.has_value() || given_.cache_batch_idx.has_value() ||
                             given_.block_table.has_value());
    return {out, lse};
  }

 private:
  static constexpr const char* kOp = "fwd_kvcache";

  void CheckShapes() {
    flash2::CheckHalves(q_, 4);
    flash2::CheckHalves(kcache_, 4, q_);
    flash2::CheckHalves(vcache_, 4, q_);
    vcache_.CheckShape(kcache_.shape(), "the shape of kcache");
    flash::CheckHeadSize(kcache_, q_);
    batch_ = q_.shape()[0];
    queries_ = q_.shape()[1];
    heads_ = q_.shape()[2];
    kv_heads_ = kcache_.shape()[2];
  }

  void SetSizes() {
    flash2::SetHeads(&params_, q_, kv_heads_, kcache_);
    params_.b = flash2::CheckInt(kOp, "the number of sequences", batch_);
    params_.seqlen_q = flash2::CheckInt(kOp, "the number of queries", queries_);
    params_.total_q = flash2::CheckInt(kOp, "the number of queries", batch_ * queries_);
  }

  void SetCacheAndPages() {
    flash2::SetCaches(&params_, kcache_, vcache_);
    keys_ = kcache_.shape()[1];
    params_.page_block_size = 1;
    if (given_.block_table.has_value()) {
      const Argument table(kOp, "block_table", *given_.block_table);
      flash2::SetPages(&params_, table, kcache_, batch_, given_.k.has_value());
      keys_ *= table.shape()[1];
      if (given_.cache_batch_idx.has_value() || given_.leftpad_k.has_value()) {
        table.Fail("is given together with cache_batch_idx or leftpad_k", "only one of them");
      }
    } else if (!given_.cache_batch_idx.has_value() && kcache_.shape()[0] < batch_) {
      kcache_.FailShape("a cache for each of the " + std::to_string(batch_) + " sequences of q");
    }
    params_.seqlen_k = flash2::CheckInt(kOp, "the number of keys", keys_);
  }

  // Sets the keys and values that are appended to the cache, and the rotation of the queries and of
  // the new keys.
  void SetNewKeys() {
    const Argument k(kOp, "k", *given_.k), v(kOp, "v", *given_.v);
    if (!given_.seqlens_k.has_value())
      k.Fail("is given without seqlens_k", "the lengths of the cached sequences");
    flash2::CheckHalves(k, 4, q_);
    flash2::CheckHalves(v, 4, q_);
    const int64_t rows = k.shape()[1];
    k.CheckShape({batch_, rows, kv_heads_, q_.shape()[3]},
                 "new rows for each sequence of the cache");
    v.CheckShape(k.shape(), "the shape of k");
    if (queries_ > keys_)
      q_.Fail("has " + std::to_string(queries_) + " rows",
              "at most the " + std::to_string(keys_) + " of the cache");
    params_.seqlen_knew = flash2::CheckInt(kOp, "the number of new keys", rows);
    params_.knew_ptr = k.tensor().data_ptr();
    params_.vnew_ptr = v.tensor().data_ptr();
    params_.knew_batch_stride = k.strides()[0];
    params_.vnew_batch_stride = v.strides()[0];
    params_.knew_row_stride = k.strides()[1];
    params_.vnew_row_stride = v.strides()[1];
    params_.knew_head_stride = k.strides()[2];
    params_.vnew_head_stride = v.strides()[2];
    if (given_.rotary_cos.has_value()) {
      flash::SetRotation(&params_, kOp, q_,
                         {*given_.rotary_cos, *given_.rotary_sin, given_.is_rotary_interleaved});
    }
  }

  void SetLengths() {
    params_.is_seqlens_k_cumulative = !given_.seqlens_k.has_value();
    if (given_.seqlens_k.has_value()) {
      params_.cu_seqlens_k = flash2::CheckInts(Argument(kOp, "seqlens_k", *given_.seqlens_k),
                                               batch_, "a length for each sequence");
    }
    if (given_.leftpad_k.has_value()) {
      params_.leftpad_k = flash2::CheckInts(Argument(kOp, "leftpad_k", *given_.leftpad_k), batch_,
                                            "a number for each sequence");
    }
    if (given_.cache_batch_idx.has_value()) {
      params_.cache_batch_idx =
          flash2::CheckInts(Argument(kOp, "cache_batch_idx", *given_.cache_batch_idx), batch_,
                            "a cache for each sequence");
    }
  }

  void SetScoresAndMask() {
    const bool alibi = given_.alibi_slopes.has_value();
    if (alibi)
      flash2::SetAlibi(&params_, Argument(kOp, "alibi_slopes", *given_.alibi_slopes), batch_,
                       heads_);
    flash2::SetScores(&params_, given_.softmax_scale, given_.softcap);
    flash2::SetMask(&params_, kOp, given_.is_causal, given_.window_size_left,
                    given_.window_size_right, keys_, queries_ == 1 && !alibi);
  }

  void SetQueriesAndOutput(const Tensor& out, const Tensor& lse) {
    params_.q_batch_stride = q_.strides()[0];
    params_.q_row_stride = q_.strides()[1];
    params_.q_head_stride = q_.strides()[2];
    params_.o_ptr = out.data_ptr();
    params_.o_batch_stride = out.strides()[0];
    params_.o_row_stride = out.strides()[1];
    params_.o_head_stride = out.strides()[2];
    params_.softmax_lse_ptr = lse.data_ptr();
  }

  const KvcacheArguments& given_;
  const Argument q_, kcache_, vcache_;
  int64_t batch_ = 0, queries_ = 0, heads_ = 0, kv_heads_ = 0, keys_ = 0;
  Params params_{};
};

std::vector<Tensor> VarlenFwd(Tensor q, Tensor k, Tensor v, std::optional<Tensor> out,
                              Tensor cu_seqlens_q, Tensor cu_seqlens_k,
                              std::optional<Tensor> seqused_k, std::optional<Tensor> leftpad_k,
                              std::optional<Tensor> block_table, std::optional<Tensor> alibi_slopes,
                              int64_t max_seqlen_q, int64_t max_seqlen_k, double p_dropout,
                              double softmax_scale, bool zero_tensors, bool is_causal,
                              int64_t window_size_left, int64_t window_size_right, double softcap,
                              bool return_softmax, int64_t num_splits,
                              std::optional<Tensor> /*gen*/) {
  return flash::RunCall<VarlenCall>(
      q, k, v, out, cu_seqlens_q, cu_seqlens_k, seqused_k, leftpad_k, block_table, alibi_slopes,
      max_seqlen_q, max_seqlen_k, p_dropout, softmax_scale, zero_tensors, is_causal,
      window_size_left, window_size_right, softcap, return_softmax, num_splits);
}

std::vector<Tensor> FwdKvcache(Tensor q, Tensor kcache, Tensor vcache, std::optional<Tensor> k,
                               std::optional<Tensor> v, std::optional<Tensor> seqlens_k,
                               std::optional<Tensor> rotary_cos, std::optional<Tensor> rotary_sin,
                               std::optional<Tensor> cache_batch_idx,
                               std::optional<Tensor> leftpad_k, std::optional<Tensor> block_table,
                               std::optional<Tensor> alibi_slopes, std::optional<Tensor> out,
                               double softmax_scale, bool is_causal, int64_t window_size_left,
                               int64_t window_size_right, double softcap,
                               bool is_rotary_interleaved, int64_t num_splits) {
  return flash::RunCall<KvcacheCall>(q, kcache, vcache, k, v, seqlens_k, rotary_cos, rotary_sin,
                                     cache_batch_idx, leftpad_k, block_table, alibi_slopes, out,
                                     softmax_scale, is_causal, window_size_left, window_size_right,
                                     softcap, is_rotary_interleaved, num_splits);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_vllm_fa2_C, m) {
  m.def(
      "varlen_fwd(Tensor! q, Tensor k, Tensor v, Tensor!? out, Tensor cu_seqlens_q, Tensor "
      "cu_seqlens_k, Tensor? seqused_k, Tensor? leftpad_k, Tensor? block_table, Tensor? "
      "alibi_slopes, int max_seqlen_q, int max_seqlen_k, float p_dropout, float softmax_scale, "
      "bool zero_tensors, bool is_causal, int window_size_left, int window_size_right, float "
      "softcap, bool return_softmax, int num_splits, Tensor? gen) -> Tensor[]");
  m.def(
      "fwd_kvcache(Tensor! q, Tensor kcache, Tensor vcache, Tensor? k, Tensor? v, Tensor? "
      "seqlens_k, Tensor? rotary_cos, Tensor? rotary_sin, Tensor? cache_batch_idx, Tensor? "
      "leftpad_k, Tensor? block_table, Tensor? alibi_slopes, Tensor!? out, float softmax_scale, "
      "bool is_causal, int window_size_left, int window_size_right, float softcap, bool "
      "is_rotary_interleaved, int num_splits) -> Tensor[]");
}

VLLM_LIBRARY_IMPL(_vllm_fa2_C, m) {
  m.impl("varlen_fwd", VLLM_BOX(vllm::VarlenFwd));
  m.impl("fwd_kvcache", VLLM_BOX(vllm::FwdKvcache));
}
