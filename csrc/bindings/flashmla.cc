// SPDX-License-Identifier: Apache-2.0
// Attention over a cache of latent rows behind upstream's op.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>
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
// Thread blocks along y, one for each part.
constexpr int64_t kMostParts = 65535;
// Elements of 2 bytes that the kernel copies at once.
constexpr int64_t kLoad = 8;

// bfloat16 or float16 of four dimensions, whose rows of kWidth elements begin at multiples of 16 bytes.
void CheckMatrix(const Argument& argument, const char* shape) {
  argument.OnDevice();
  const ScalarType type = argument.tensor().scalar_type();
  if (type != ScalarType::BFloat16 && type != ScalarType::Half) {
    argument.Fail(std::string("is of dtype ") + torch::headeronly::toString(type), "BFloat16 or Half");
  }
  if (argument.shape().size() != 4 || argument.shape()[3] != flashmla::kWidth) {
    argument.Fail("has shape " + ShapeText(argument.shape()), shape);
  }
  argument.LastDimensionContiguous();
  bool aligned = reinterpret_cast<uintptr_t>(argument.tensor().data_ptr()) % (2 * kLoad) == 0;
  for (size_t i = 0; i < 3; ++i) aligned = aligned && (argument.shape()[i] < 2 || argument.strides()[i] % kLoad == 0);
  if (!aligned) argument.Fail("has strides " + ShapeText(argument.strides()), "rows that begin at multiples of 16 bytes");
}

void CheckInts(const Argument& argument) {
  argument.OnDevice().OfDType(ScalarType::Int);
  if (!argument.tensor().is_contiguous()) argument.Fail("has strides " + ShapeText(argument.strides()), "contiguous memory");
}

// [batch, queries, heads, kValueWidth], of the caller's memory if there is some.
Tensor OutputOf(const Argument& q, const std::optional<Tensor>& given) {
  const int64_t batch = q.shape()[0], queries = q.shape()[1], heads = q.shape()[2];
  if (!given.has_value()) return NewTensor<4>(q.tensor(), {batch, queries, heads, flashmla::kValueWidth}, q.tensor().scalar_type());
  const Argument out(kOp, "out_", *given);
  out.OnDevice().SameDTypeAs(q);
  const int64_t folded[] = {batch, 1, queries * heads, flashmla::kValueWidth};
  const bool is_folded = out.shape() == Extents(folded);
  if (!is_folded) {
    out.HasShape({batch, queries, heads, flashmla::kValueWidth},
                 "the shape of q with 512 elements a head, or with its queries and heads folded");
  }
  if (!out.tensor().is_contiguous()) out.Fail("has strides " + ShapeText(out.strides()), "contiguous memory");
  if (reinterpret_cast<uintptr_t>(out.tensor().data_ptr()) % (2 * kLoad) != 0) {
    out.Fail("begins at an odd address", "memory that begins at a multiple of 16 bytes");
  }
  return is_folded ? torch::stable::view(*given, {batch, queries, heads, flashmla::kValueWidth}) : *given;
}

// The caller's cut of the batch, or a new one.
std::pair<Tensor, Tensor> PlanOf(const Argument& q, const flashmla::DenseDecode& decode, const std::optional<Tensor>& parts,
                                 const std::optional<Tensor>& splits) {
  if (parts.has_value() != splits.has_value()) {
    throw std::runtime_error(std::string(kOp) + ": tile_scheduler_metadata or num_splits is given alone, expected both or neither");
  }
  if (parts.has_value()) {
    const Argument given(kOp, "tile_scheduler_metadata", *parts), counts(kOp, "num_splits", *splits);
    CheckInts(given);
    if (given.shape().size() != 2 || given.shape()[0] < 1 || given.shape()[0] > kMostParts || given.shape()[1] != flashmla::kPartInts) {
      given.Fail("has shape " + ShapeText(given.shape()), "[parts, 8], as a call without it returns it");
    }
    CheckInts(counts);
    counts.HasShape({decode.batch + int64_t{1}}, "one more than there are sequences");
    return {*parts, *splits};
  }
  flashmla::Plan plan;
  plan.lengths = decode.lengths;
  plan.batch = decode.batch;
  plan.max_pages = decode.max_pages;
  plan.count = flashmla::PartCount(int64_t{decode.queries} * decode.heads);
  const Tensor made = NewTensor<2>(q.tensor(), {plan.count, flashmla::kPartInts}, ScalarType::Int);
  const Tensor counts = NewTensor<1>(q.tensor(), {decode.batch + int64_t{1}}, ScalarType::Int);
  plan.parts = static_cast<int32_t*>(made.data_ptr());
  plan.splits = static_cast<int32_t*>(counts.data_ptr());
  flashmla::RunPlan(plan);
  return {made, counts};
}

std::tuple<Tensor, Tensor, std::optional<Tensor>, std::optional<Tensor>> DenseDecodeFwd(
    Tensor q_tensor, Tensor kcache_tensor, int64_t head_size_v, Tensor seqlens_k_tensor, Tensor block_table_tensor, double softmax_scale,
    bool is_causal, std::optional<Tensor> tile_scheduler_metadata, std::optional<Tensor> num_splits, std::optional<Tensor> out_tensor) {
  const Argument q(kOp, "q", q_tensor), kcache(kOp, "kcache", kcache_tensor);
  CheckMatrix(q, "[batch, queries, heads, 576]");
  CheckMatrix(kcache, "[pages, 64, 1, 576]");
  kcache.SameDTypeAs(q);
  if (kcache.shape()[1] != flashmla::kPageRows || kcache.shape()[2] != 1) {
    kcache.Fail("has shape " + ShapeText(kcache.shape()), "[pages, 64, 1, 576]: pages of 64 rows that all heads share");
  }
  if (head_size_v != flashmla::kValueWidth) {
    throw std::runtime_error(std::string(kOp) + ": head_size_v is " + std::to_string(head_size_v) + ", expected 512");
  }
  const int64_t batch = q.shape()[0], queries = q.shape()[1], heads = q.shape()[2];
  if (batch >= kMostInt || queries * heads > kMostInt) q.Fail("has shape " + ShapeText(q.shape()), "fewer than 2^31 rows");
  const Argument seqlens_k(kOp, "seqlens_k", seqlens_k_tensor), block_table(kOp, "block_table", block_table_tensor);
  CheckInts(seqlens_k);
  seqlens_k.HasShape({batch}, "a length for each sequence of q");
  block_table.OnDevice().OfDType(ScalarType::Int);
  if (block_table.shape().size() != 2 || block_table.shape()[0] != batch || block_table.shape()[1] >= kMostInt / flashmla::kPageRows) {
    block_table.Fail("has shape " + ShapeText(block_table.shape()),
                     "[" + std::to_string(batch) + ", pages of the longest sequence]: a row for each sequence of q");
  }
  block_table.LastDimensionContiguous();

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

  const Tensor out = OutputOf(q, out_tensor);
  const Tensor lse = NewTensor<3>(q_tensor, {batch, heads, queries}, ScalarType::Float);
  const auto [parts, splits] = PlanOf(q, decode, tile_scheduler_metadata, num_splits);
  decode.part_count = static_cast<int>(Argument(kOp, "tile_scheduler_metadata", parts).shape()[0]);
  decode.parts = static_cast<const int32_t*>(parts.data_ptr());
  decode.splits = static_cast<const int32_t*>(splits.data_ptr());
  decode.out = out.data_ptr();
  decode.lse = static_cast<float*>(lse.data_ptr());
  // How many pieces there are stands in the GPU's memory: as many as there may be.
  const int64_t pieces = batch + decode.part_count;
  const Tensor piece_out = NewTensor<3>(q_tensor, {pieces, queries * heads, flashmla::kValueWidth}, ScalarType::Float);
  const Tensor piece_lse = NewTensor<2>(q_tensor, {pieces, queries * heads}, ScalarType::Float);
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
      "dense_decode_fwd(Tensor q, Tensor kcache, int head_size_v, Tensor seqlens_k, Tensor block_table, float softmax_scale, "
      "bool is_causal, Tensor(a)? tile_scheduler_metadata, Tensor(b)? num_splits, Tensor(c!)? out_) -> "
      "(Tensor(c!), Tensor, Tensor(a)?, Tensor(b)?)");
}

VLLM_LIBRARY_IMPL(_flashmla_C, m) { m.impl("dense_decode_fwd", VLLM_BOX(vllm::DenseDecodeFwd)); }
