// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"
#include "moe/align.h"
#include "moe/routing.h"
#include "moe/sum.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;
using MaybeTensor = std::optional<Tensor>;

// Checks a contiguous int32 vector of at least `least` elements.
int32_t* CheckList(const char* op, const char* name, const Tensor& tensor, int64_t least,
                   const std::string& why) {
  const Argument list(op, name, tensor);
  list.CheckOnDevice().CheckDType(ScalarType::Int).CheckContiguous().CheckRank(1, "one dimension");
  if (list.shape()[0] < least) {
    list.Fail("has " + std::to_string(list.shape()[0]) + " elements",
              "at least " + std::to_string(least) + ": " + why);
  }
  return static_cast<int32_t*>(tensor.data_ptr());
}

ExpertIds CheckIds(const char* op, const char* name, const Tensor& tensor) {
  const Argument ids(op, name, tensor);
  ids.CheckOnDevice().CheckRank(2, "[tokens, topk]");
  ids.CheckDTypeIn({ScalarType::Int, ScalarType::Long});
  return {tensor.data_ptr(), ids.scalar_type() == ScalarType::Long,
          ids.shape()[0],    ids.shape()[1],
          ids.strides()[0],  ids.strides()[1]};
}

// Checks the experts' bias and sets it in `router`, with its own dtype.
void SetBias(const char* op, const Tensor& tensor, int64_t experts, Router& router) {
  const Argument bias(op, "bias", tensor);
  bias.CheckOnDevice()
      .CheckFloating()
      .CheckShape({experts}, "one element for each expert")
      .CheckContiguous();
  router.bias = tensor.data_ptr();
  router.bias_dtype = bias.dtype();
}

void CheckTopK(const char* op, int64_t topk, int64_t experts) {
  if (topk <= experts) return;
  FailOp(op, "topk is " + std::to_string(topk) + ", expected at most the " +
                 std::to_string(experts) + " experts to choose from");
}

void RouteOp(const char* op, Scoring scoring, const Tensor& weights_tensor,
             const Tensor& indices_tensor, const Tensor& positions_tensor,
             const Tensor& logits_tensor, bool renormalize, const MaybeTensor& bias, double scale,
             const MaybeTensor& padding_tensor) {
  const Argument logits(op, "gating_output", logits_tensor);
  logits.CheckOnDevice().CheckFloating().CheckRank(2, "[tokens, experts]");
  logits.CheckLastDimensionContiguous();
  const int64_t tokens = logits.shape()[0], experts = logits.shape()[1];

  const Argument weights(op, "topk_weights", weights_tensor);
  weights.CheckOnDevice()
      .CheckDType(ScalarType::Float)
      .CheckContiguous()
      .CheckRank(2, "[tokens, topk]");
  const int64_t topk = weights.shape()[1];
  const std::vector<int64_t> shape{tokens, topk};
  weights.CheckShape(shape, "the tokens of gating_output, topk");
  const Argument indices(op, "topk_indices", indices_tensor);
  indices.CheckOnDevice().CheckShape(shape, "the shape of topk_weights").CheckContiguous();
  indices.CheckDTypeIn({ScalarType::Int, ScalarType::UInt32, ScalarType::Long});
  const Argument positions(op, "token_expert_indices", positions_tensor);
  positions.CheckOnDevice()
      .CheckDType(ScalarType::Int)
      .CheckShape(shape, "the shape of topk_weights")
      .CheckContiguous();
  CheckTopK(op, topk, experts);
  if (tokens * topk > std::numeric_limits<int32_t>::max())
    FailOp(op, "tokens * topk exceeds the range of token_expert_indices");

  Router router;
  router.scoring = scoring;
  router.topk = topk;
  router.renormalize = renormalize;
  router.scale = static_cast<float>(scale);
  if (bias.has_value()) SetBias(op, *bias, experts, router);
  if (padding_tensor.has_value()) {
    const Argument padding(op, "is_padding", *padding_tensor);
    padding.CheckOnDevice()
        .CheckDType(ScalarType::Bool)
        .CheckShape({tokens}, "one element for each token")
        .CheckContiguous();
    router.padding = static_cast<const uint8_t*>(padding_tensor->data_ptr());
  }
  Routes routes;
  routes.weights = static_cast<float*>(weights_tensor.data_ptr());
  routes.experts = indices_tensor.data_ptr();
  routes.type = indices.scalar_type() == ScalarType::Long ? IndexType::kInt64 : IndexType::kInt32;
  routes.positions = static_cast<int32_t*>(positions_tensor.data_ptr());
  Route(logits.GetLastDimensionRows(), router, routes);
}

void TopKSoftmax(Tensor weights, Tensor indices, Tensor positions, Tensor logits, bool renormalize,
                 MaybeTensor bias, MaybeTensor padding) {
  RouteOp("topk_softmax", Scoring::kSoftmax, weights, indices, positions, logits, renormalize, bias,
          1.0, padding);
}

void TopKSigmoid(Tensor weights, Tensor indices, Tensor positions, Tensor logits, bool renormalize,
                 MaybeTensor bias, double scale, MaybeTensor padding) {
  RouteOp("topk_sigmoid", Scoring::kSigmoid, weights, indices, positions, logits, renormalize, bias,
          scale, padding);
}

std::tuple<Tensor, Tensor> GroupedTopK(Tensor scores_tensor, int64_t groups, int64_t kept_groups,
                                       int64_t topk, bool renormalize, double scale, Tensor bias,
                                       int64_t scoring) {
  const char* op = "grouped_topk";
  const Argument scores(op, "scores", scores_tensor);
  scores.CheckOnDevice().CheckFloating().CheckRank(2, "[tokens, experts]");
  scores.CheckLastDimensionContiguous();
  const int64_t tokens = scores.shape()[0], experts = scores.shape()[1];
  CheckAtLeast(op, "n_group", groups, 1);
  CheckAtLeast(op, "topk_group", kept_groups, 1);
  CheckAtLeast(op, "topk", topk, 1);
  if (experts % groups != 0) {
    FailOp(op, "n_group is " + std::to_string(groups) + ", expected a divisor of the " +
                   std::to_string(experts) + " experts");
  }
  if (kept_groups > groups) {
    FailOp(op, "topk_group is " + std::to_string(kept_groups) + ", expected at most n_group " +
                   std::to_string(groups));
  }
  CheckTopK(op, topk, kept_groups * (experts / groups));
  if (scoring != 0 && scoring != 1)
    FailOp(op, "scoring_func is " + std::to_string(scoring) + ", expected 0 (none) or 1 (sigmoid)");
  Router router;
  router.scoring = scoring == 1 ? Scoring::kSigmoid : Scoring::kNone;
  router.topk = topk;
  router.renormalize = renormalize;
  router.scale = static_cast<float>(scale);
  router.groups = groups;
  router.kept_groups = kept_groups;
  SetBias(op, bias, experts, router);

  Tensor weights = MakeTensor<2>(scores_tensor, {tokens, topk}, ScalarType::Float);
  Tensor indices = MakeTensor<2>(scores_tensor, {tokens, topk}, ScalarType::Int);
  Routes routes;
  routes.weights = static_cast<float*>(weights.data_ptr());
  routes.experts = indices.data_ptr();
  Route(scores.GetLastDimensionRows(), router, routes);
  return {weights, indices};
}

// Checks expert_map, contiguous int32. Returns null if it is not given.
const int32_t* CheckMap(const char* op, const char* name, const MaybeTensor& map, int64_t least) {
  return map.has_value() ? CheckList(op, name, *map, least, "one for each expert") : nullptr;
}

// Checks the lists to which AlignRoutes and AlignBatches write.
AlignedRoutes CheckAligned(const char* op, const Tensor& sorted, int64_t least_sorted,
                           const Tensor& blocks, int64_t least_blocks, const Tensor& length) {
  AlignedRoutes aligned;
  aligned.sorted =
      CheckList(op, "sorted_token_ids", sorted, least_sorted, "whole blocks for every expert");
  aligned.sorted_size = sorted.numel();
  aligned.experts = CheckList(op, "experts_ids", blocks, least_blocks, "one for each block");
  aligned.experts_size = blocks.numel();
  aligned.length = CheckList(op, "num_tokens_post_pad", length, 1, "the padded length");
  return aligned;
}

void MoeAlignBlockSize(Tensor topk_ids, int64_t experts, int64_t block, Tensor sorted_tensor,
                       Tensor blocks_tensor, Tensor length_tensor, MaybeTensor map_tensor,
                       MaybeTensor scatter_tensor) {
  const char* op = "moe_align_block_size";
  const ExpertIds ids = CheckIds(op, "topk_ids", topk_ids);
  CheckAtLeast(op, "num_experts", experts, 1);
  CheckAtLeast(op, "block_size", block, 1);
  const int32_t* map = CheckMap(op, "maybe_expert_map", map_tensor, experts);
  const int64_t routes = ids.tokens * ids.topk;
  if (routes > std::numeric_limits<int32_t>::max() - experts * std::min(block, routes))
    FailOp(op, "topk_ids has too many elements, expected a number that fits into int32");
  int32_t* scatter = nullptr;
  if (scatter_tensor.has_value()) {
    const Argument argument(op, "scatter_idx", *scatter_tensor);
    argument.CheckOnDevice().CheckDType(ScalarType::Int).CheckContiguous();
    if (scatter_tensor->numel() != routes) {
      argument.Fail("has " + std::to_string(scatter_tensor->numel()) + " elements",
                    std::to_string(routes) + ", the number of elements of topk_ids");
    }
    scatter = static_cast<int32_t*>(scatter_tensor->data_ptr());
  }
  AlignedRoutes aligned = CheckAligned(op, sorted_tensor, 0, blocks_tensor, 0, length_tensor);
  aligned.scatter = scatter;
  AlignRoutes(op, ids, experts, block, map, aligned);
}

void BatchedMoeAlignBlockSize(int64_t capacity, int64_t block, Tensor counts_tensor,
                              Tensor sorted_tensor, Tensor blocks_tensor, Tensor length_tensor) {
  const char* op = "batched_moe_align_block_size";
  CheckAtLeast(op, "max_tokens_per_batch", capacity, 0);
  CheckAtLeast(op, "block_size", block, 1);
  const int32_t* counts = CheckList(op, "expert_num_tokens", counts_tensor, 0, "");
  const int64_t experts = counts_tensor.numel();
  const int64_t blocks_each = capacity / block + (capacity % block != 0 ? 1 : 0);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (blocks_each > kMost / block || (experts > 0 && blocks_each * block > kMost / experts)) {
    FailOp(op,
           "max_tokens_per_batch times the number of experts is too large, expected a number that "
           "fits into int32");
  }
  const int64_t all_blocks = experts * blocks_each;
  AlignBatches(op, counts, experts, capacity, block,
               CheckAligned(op, sorted_tensor, all_blocks * block, blocks_tensor, all_blocks,
                            length_tensor));
}

// -1 means no expert; other numbers must be experts of the map.
void CheckTaken(const char* op, const TakenRoutes& taken) {
  for (int64_t token = 0; token < taken.ids.tokens; ++token) {
    for (int64_t choice = 0; choice < taken.ids.topk; ++choice) {
      const int64_t expert = taken.ids.Get(token, choice);
      if (expert >= -1 && (taken.map == nullptr || expert < taken.experts)) continue;
      const std::string most =
          taken.map == nullptr
              ? ""
              : " and below the " + std::to_string(taken.experts) + " experts of expert_map";
      FailOp(op, "topk_ids[" + std::to_string(token) + ", " + std::to_string(choice) + "] is " +
                     std::to_string(expert) + ", expected at least -1" + most);
    }
  }
}

void MoeSum(Tensor input_tensor, Tensor output_tensor, MaybeTensor ids_tensor,
            MaybeTensor map_tensor) {
  const char* op = "moe_sum";
  const Argument input(op, "input", input_tensor);
  input.CheckOnDevice().CheckFloating().CheckRank(3, "[tokens, topk, hidden]");
  input.CheckLastDimensionContiguous();
  const int64_t tokens = input.shape()[0], topk = input.shape()[1], hidden = input.shape()[2];
  const Argument output(op, "output", output_tensor);
  output.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape({tokens, hidden}, "the shape of input without topk")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  TakenRoutes taken;
  if (ids_tensor.has_value()) {
    taken.ids = CheckIds(op, "topk_ids", *ids_tensor);
    Argument(op, "topk_ids", *ids_tensor)
        .CheckShape({tokens, topk}, "the first two dimensions of input");
    taken.map = CheckMap(op, "expert_map", map_tensor, 0);
    taken.experts = taken.map == nullptr ? 0 : map_tensor->numel();
    if constexpr (!kOnGpu) CheckTaken(op, taken);
  } else if (map_tensor.has_value()) {
    FailOp(op, "expert_map is given without topk_ids, expected both or only topk_ids");
  }
  SumChoices(output.GetLastDimensionRows(), input.GetLastDimensionRows(), topk, taken);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_moe_C, m) {
  m.def(
      "topk_softmax(Tensor! topk_weights, Tensor! topk_indices, Tensor! token_expert_indices, "
      "Tensor gating_output, bool renormalize, Tensor? bias, Tensor? is_padding) -> ()");
  m.def(
      "topk_sigmoid(Tensor! topk_weights, Tensor! topk_indices, Tensor! token_expert_indices, "
      "Tensor gating_output, bool renormalize, Tensor? bias, float routed_scaling_factor, Tensor? "
      "is_padding) -> ()");
  m.def(
      "grouped_topk(Tensor scores, int n_group, int topk_group, int topk, bool renormalize, float "
      "routed_scaling_factor, Tensor bias, int scoring_func) -> (Tensor, Tensor)");
  m.def(
      "moe_align_block_size(Tensor topk_ids, int num_experts, int block_size, Tensor! "
      "sorted_token_ids, Tensor! experts_ids, Tensor! num_tokens_post_pad, Tensor? "
      "maybe_expert_map, Tensor!? scatter_idx=None) -> ()");
  m.def(
      "batched_moe_align_block_size(int max_tokens_per_batch, int block_size, Tensor "
      "expert_num_tokens, Tensor! sorted_token_ids, Tensor! experts_ids, Tensor! "
      "num_tokens_post_pad) -> ()");
  m.def(
      "moe_sum(Tensor input, Tensor! output, Tensor? topk_ids=None, Tensor? expert_map=None) -> "
      "()");
}

VLLM_LIBRARY_IMPL(_moe_C, m) {
  m.impl("topk_softmax", VLLM_BOX(vllm::TopKSoftmax));
  m.impl("topk_sigmoid", VLLM_BOX(vllm::TopKSigmoid));
  m.impl("grouped_topk", VLLM_BOX(vllm::GroupedTopK));
  m.impl("moe_align_block_size", VLLM_BOX(vllm::MoeAlignBlockSize));
  m.impl("batched_moe_align_block_size", VLLM_BOX(vllm::BatchedMoeAlignBlockSize));
  m.impl("moe_sum", VLLM_BOX(vllm::MoeSum));
}
