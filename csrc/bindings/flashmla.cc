// SPDX-License-Identifier: Apache-2.0
// Upstream's op for attention over a cache of latent rows.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <tuple>

#include "attention/flashmla/dense_decode.h"
#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

constexpr const char* kOp = "dense_decode_fwd";
constexpr int64_t kMostInt = std::numeric_limits<int>::max();
// The maximum number of thread blocks along y; there is one for each part.
constexpr int64_t kMostParts = 65535;
// The number of bytes that the kernel copies at once.
constexpr int64_t kLoadBytes = 16;

// Checks a tensor of bfloat16 or float16 with four dimensions, whose rows of kWidth elements begin
// at multiples of 16 bytes.
void CheckRows(const Argument& argument, const char* shape) {
  argument.CheckOnDevice()
      .CheckDTypeIn({ScalarType::BFloat16, ScalarType::Half})
      .CheckRank(4, shape);
  if (argument.shape()[3] != flashmla::kWidth) argument.FailShape(shape);
  argument.CheckRowsAligned(kLoadBytes);
}

const Argument& CheckInts(const Argument& argument) {
  return argument.CheckOnDevice().CheckDType(ScalarType::Int).CheckContiguous();
}

// Returns a tensor of [batch, queries, heads, kValueWidth]: the caller's, if given.
Tensor TakeOrMakeOutput(const Argument& q, const std::optional<Tensor>& given) {
  const int64_t batch = q.shape()[0], queries = q.shape()[1], heads = q.shape()[2];
  if (!given.has_value())
    return MakeTensor<4>(q.tensor(), {batch, queries, heads, flashmla::kValueWidth},
                         q.tensor().scalar_type());
  const Argument out(kOp, "out_", *given);
  out.CheckOnDevice().CheckSameDType(q);
  const int64_t folded[] = {batch, 1, queries * heads, flashmla::kValueWidth};
  const bool is_folded = out.shape() == Extents(folded);
  if (!is_folded) {
    out.CheckShape({batch, queries, heads, flashmla::kValueWidth},
                   "the shape of q with 512 elements a head, or with its queries and heads merged");
  }
  out.CheckContiguous().CheckAligned(kLoadBytes);
  return is_folded ? torch::stable::view(*given, {batch, queries, heads, flashmla::kValueWidth})
                   : *given;
}

// Returns the caller's plan of the batch, or a new one.
std::pair<Tensor, Tensor> TakeOrMakePlan(const Argument& q, const flashmla::DenseDecode& decode,
                                         const std::optional<Tensor>& parts,
                                         const std::optional<Tensor>& splits) {
  if (parts.has_value() != splits.has_value()) {
    FailOp(kOp, "tile_scheduler_metadata or num_splits is given alone, expected both or neither");
  }
  if (parts.has_value()) {
    const Argument given(kOp, "tile_scheduler_metadata", *parts),
        counts(kOp, "num_splits", *splits);
    if (CheckInts(given).shape().size() != 2 || given.shape()[0] < 1 ||
        given.shape()[0] > kMostParts || given.shape()[1] != flashmla::kPartInts) {
      given.FailShape("[parts, 8], as returned by a call without it");
    }
    CheckInts(counts).CheckShape({decode.batch + int64_t{1}},
                                 "one more than the number of sequences");
    return {*parts, *splits};
  }
  flashmla::Plan plan;
  plan.lengths = decode.lengths;
  plan.batch = decode.batch;
  plan.max_pages = decode.max_pages;
  plan.count = flashmla::ChoosePartCount(int64_t{decode.queries} * decode.heads);
  const Tensor made = MakeTensor<2>(q.tensor(), {plan.count, flashmla::kPartInts}, ScalarType::Int);
  const Tensor counts = MakeTensor<1>(q.tensor(), {decode.batch + int64_t{1}}, ScalarType::Int);
  plan.parts = static_cast<int32_t*>(made.data_ptr());
  plan.splits = static_cast<int32_t*>(counts.data_ptr());
  flashmla::RunPlan(plan);
  return {made, counts};
}

std::tuple<Tensor, Tensor, std::optional<Tensor>, std::optional<Tensor>> DenseDecodeFwd(
    Tensor q_tensor, Tensor kcache_tensor, int64_t head_size_v, Tensor seqlens_k_tensor,
    Tensor block_table_tensor, double softmax_scale, bool is_causal,
    std::optional<Tensor> tile_scheduler_metadata, std::optional<Tensor> num_splits,
    std::optional<Tensor> out_tensor) {
  const Argument q(kOp, "q", q_tensor), kcache(kOp, "kcache", kcache_tensor);
  CheckRows(q, "[batch, queries, heads, 576]");
  CheckRows(kcache, "[pages, 64, 1, 576]");
  kcache.CheckSameDType(q);
  if (kcache.shape()[1] != flashmla::kPageRows || kcache.shape()[2] != 1) {
    kcache.FailShape("[pages, 64, 1, 576]: pages of 64 rows that all heads share");
  }
  if (head_size_v != flashmla::kValueWidth) {
    FailOp(kOp, "head_size_v is " + std::to_string(head_size_v) + ", expected 512");
  }
  const int64_t batch = q.shape()[0], queries = q.shape()[1], heads = q.shape()[2];
  if (batch >= kMostInt || queries * heads > kMostInt) q.FailShape("fewer than 2^31 rows");
  const Argument seqlens_k(kOp, "seqlens_k", seqlens_k_tensor),
      block_table(kOp, "block_table", block_table_tensor);
  CheckInts(seqlens_k).CheckShape({batch}, "a length for each sequence of q");
  block_table.CheckOnDevice().CheckDType(ScalarType::Int);
  if (block_table.shape().size() != 2 || block_table.shape()[0] != batch ||
      block_table.shape()[1] >= kMostInt / flashmla::kPageRows) {
    block_table.FailShape("[" + std::to_string(batch) +
                          ", pages of the longest sequence]: a row for each sequence of q");
  }
  block_table.CheckLastDimensionContiguous();

  flashmla::DenseDecode decode{};
  decode.dtype = q.dtype();
  decode.q = q_tensor.data_ptr();
  for (size_t i = 0; i < 3; ++i) decode.q_strides[i] = q.strides()[i];
  decode.cache = kcache_tensor.data_ptr();
  decode.page_stride = kcache.strides()[0];
  decode.row_stride = kcache.strides()[1];
  decode.pages = kcache.shape()[0];
  decode.lengths = static_cast<const int32_t*>(seqlens_k_tensor.data_ptr());
  decode.table = static_cast<const int32_t*>(block_table_tensor.data_ptr());
  decode.table_stride = block_table.strides()[0];
  decode.max_pages = static_cast<int>(block_table.shape()[1]);
  decode.batch = static_cast<int>(batch);
  decode.queries = static_cast<int>(queries);
  decode.heads = static_cast<int>(heads);
  decode.causal = is_causal;
  decode.scale = static_cast<float>(softmax_scale);

  const Tensor out = TakeOrMakeOutput(q, out_tensor);
  const Tensor lse = MakeTensor<3>(q_tensor, {batch, heads, queries}, ScalarType::Float);
  const auto [parts, splits] = TakeOrMakePlan(q, decode, tile_scheduler_metadata, num_splits);
  decode.part_count = static_cast<int>(Argument(kOp, "tile_scheduler_metadata", parts).shape()[0]);
  decode.parts = static_cast<const int32_t*>(parts.data_ptr());
  decode.splits = static_cast<const int32_t*>(splits.data_ptr());
  decode.out = out.data_ptr();
  decode.lse = static_cast<float*>(lse.data_ptr());
  // The number of pieces is known on the GPU only, so there is memory for the maximum.
  const int64_t pieces = batch + decode.part_count;
  const Tensor piece_out =
      MakeTensor<3>(q_tensor, {pieces, queries * heads, flashmla::kValueWidth}, ScalarType::Float);
  const Tensor piece_lse = MakeTensor<2>(q_tensor, {pieces, queries * heads}, ScalarType::Float);
  decode.piece_out = static_cast<float*>(piece_out.data_ptr());
  decode.piece_lse = static_cast<float*>(piece_lse.data_ptr());
  flashmla::RunDenseDecode(decode);
  flashmla::RunCombine(decode);
  return {out, lse, parts, splits};
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_flashmla_C, m) {
  m.def(
      "dense_decode_fwd(Tensor q, Tensor kcache, int head_size_v, Tensor seqlens_k, Tensor "
      "block_table, float softmax_scale, bool is_causal, Tensor(a)? tile_scheduler_metadata, "
      "Tensor(b)? num_splits, Tensor(c!)? out_) -> (Tensor(c!), Tensor, Tensor(a)?, Tensor(b)?)");
}

VLLM_LIBRARY_IMPL(_flashmla_C, m) { m.impl("dense_decode_fwd", VLLM_BOX(vllm::DenseDecodeFwd)); }
