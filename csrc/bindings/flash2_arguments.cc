// SPDX-License-Identifier: Apache-2.0
#include "bindings/flash2_arguments.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "attention/flash2/splits.h"
#include "bindings/new_tensor.h"
#include "core/gpu/stream.h"

namespace vllm::flash2 {
namespace {

using torch::headeronly::ScalarType;

constexpr int64_t kLargestHead = kHeadSizes[kHeadSizeCount - 1];
// Smaller pages than a block are looked up row by row. The limit is upstream's: this op does not
// accept a cache that upstream rejects.
constexpr int64_t kPageUnit = 16;
// The rows of queries in a tile of the kernels for pages and split keys.
constexpr int64_t kTileRows = 64;
// The number of thread blocks of 128 threads that a multiprocessor runs at a time.
constexpr int64_t kBlocksPerMultiprocessor = 2;

}  // namespace

void SetHeads(Params* params, const Argument& q, int64_t kv_heads, const Argument& k) {
  const int64_t heads = q.shape()[q.shape().size() - 2], size = q.shape().back();
  if (size < 1 || size > kLargestHead || size % flash::kLoad != 0) {
    q.Fail("has heads of size " + std::to_string(size),
           "a multiple of 8 up to " + std::to_string(kLargestHead));
  }
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0) {
    k.Fail("has " + std::to_string(kv_heads) + " heads",
           "a number that divides the " + std::to_string(heads) + " heads of q");
  }
  const int compiled = FindCompiledHeadSize(static_cast<int>(size));
  if (compiled == 0) {
    q.Fail("has heads of size " + std::to_string(size) + ", for which this library has no kernel",
           "at most the largest compiled size (" + ListCompiledHeadSizes() +
               "), or a library built with VLLM_FA_SET=full");
  }
  params->d = static_cast<int>(size);
  params->d_rounded = compiled;
  params->is_bf16 = q.tensor().scalar_type() == ScalarType::BFloat16;
  params->q_ptr = q.tensor().data_ptr();
}

void SetCaches(Params* params, const Argument& k, const Argument& v) {
  params->k_ptr = k.tensor().data_ptr();
  params->v_ptr = v.tensor().data_ptr();
  params->k_batch_stride = k.strides()[0];
  params->v_batch_stride = v.strides()[0];
  params->k_row_stride = k.strides()[1];
  params->v_row_stride = v.strides()[1];
  params->k_head_stride = k.strides()[2];
  params->v_head_stride = v.strides()[2];
}

void SetPages(Params* params, const Argument& table, const Argument& k, int64_t batch,
              bool append) {
  table.CheckOnDevice().CheckDType(ScalarType::Int);
  if (table.shape().size() != 2 || table.shape()[0] != batch) {
    table.FailShape("[" + std::to_string(batch) + ", pages of the longest sequence]");
  }
  table.CheckLastDimensionContiguous();
  const int64_t rows = k.shape()[1], unit = append ? GetBlockRows(params->d_rounded) : kPageUnit;
  if (rows < 1 || rows % unit != 0) {
    k.Fail("has pages of " + std::to_string(rows) + " rows",
           "a multiple of " + std::to_string(unit) +
               (append ? ", because new keys of this head size are appended in blocks" : ""));
  }
  params->block_table = static_cast<int*>(table.tensor().data_ptr());
  params->block_table_batch_stride = table.strides()[0];
  params->page_block_size = static_cast<int>(rows);
}

void SetScores(Params* params, double softmax_scale, double softcap) {
  // With a cap, the kernel computes cap * tanh(scale / cap * score) and then uses the cap as the
  // scale.
  const double scale = softcap > 0 ? softcap : softmax_scale;
  params->softcap = static_cast<float>(softcap > 0 ? softmax_scale / softcap : 0.0);
  params->scale_softmax = static_cast<float>(scale);
  params->scale_softmax_log2 = static_cast<float>(scale * 1.4426950408889634);
  flash::DisableDropout(params);
  params->scale_softmax_rp_dropout = params->scale_softmax;
}

void SetMask(Params* params, const char* op, bool causal, int64_t left, int64_t right, int64_t keys,
             bool one_query) {
  const int all = CheckInt(op, "the number of keys", keys);
  if (causal) right = 0;
  if (one_query || right >= keys) right = -1;
  if (left >= keys) left = -1;
  // The kernels call a mask causal if it is a window of everything up to the query. Any other
  // window has two sides.
  params->is_causal = left < 0 && right == 0;
  const bool windowed = left >= 0 || right >= 0;
  params->window_size_left = !windowed ? -1 : left < 0 ? all : static_cast<int>(left);
  params->window_size_right = !windowed ? -1 : right < 0 ? all : static_cast<int>(right);
}

void SetAlibi(Params* params, const Argument& slopes, int64_t batch, int64_t heads) {
  slopes.CheckOnDevice().CheckDType(ScalarType::Float).CheckLastDimensionContiguous();
  const bool each = slopes.shape().size() == 2;
  if (each) {
    slopes.CheckShape({batch, heads}, "a slope for each head of each sequence");
  } else {
    slopes.CheckShape({heads}, "a slope for each head");
  }
  params->alibi_slopes_ptr = slopes.tensor().data_ptr();
  params->alibi_slopes_batch_stride = each ? slopes.strides()[0] : 0;
}

bool GroupHeads(Params* params, int64_t heads, int64_t kv_heads) {
  // A window or a bias would have to treat these rows as queries of one position.
  const bool windowed = params->window_size_left >= 0 || params->window_size_right >= 0;
  const bool grouped =
      params->seqlen_q == 1 && heads > kv_heads && !windowed && params->alibi_slopes_ptr == nullptr;
  const int64_t group = grouped ? heads / kv_heads : 1;
  if (grouped) {
    params->q_row_stride = params->q_head_stride;
    params->o_row_stride = params->o_head_stride;
    params->q_head_stride *= group;
    params->o_head_stride *= group;
    params->seqlen_q = static_cast<int>(group);
  }
  params->h = static_cast<int>(grouped ? kv_heads : heads);
  params->h_k = static_cast<int>(kv_heads);
  params->h_h_k_ratio = params->h / params->h_k;
  return grouped;
}

Parts SetSplits(Params* params, const char* op, const Tensor& q, int64_t num_splits) {
  if (num_splits > kMostSplits) {
    FailOp(op, "num_splits is " + std::to_string(num_splits) + ", expected at most " +
                   std::to_string(kMostSplits));
  }
  const int64_t rows = params->seqlen_q, batch_heads = static_cast<int64_t>(params->b) * params->h;
  if (num_splits < 1 && !IsCompiled(*params, true)) num_splits = 1;
  if (num_splits < 1) {
    const int64_t block = GetBlockRows(params->d_rounded);
    const int64_t tiles = batch_heads * ((rows + kTileRows - 1) / kTileRows);
    num_splits = ChooseSplits(tiles, kBlocksPerMultiprocessor * gpu::GetMultiprocessorCount(),
                              (params->seqlen_k + block - 1) / block);
  }
  params->num_splits = static_cast<int>(num_splits);
  Parts parts;
  if (num_splits > 1) {
    parts.lse = MakeTensor<1>(q, {num_splits * batch_heads * rows}, ScalarType::Float);
    parts.out =
        MakeTensor<1>(q, {num_splits * batch_heads * rows * params->d_rounded}, ScalarType::Float);
    params->softmax_lseaccum_ptr = parts.lse->data_ptr();
    params->oaccum_ptr = parts.out->data_ptr();
  }
  return parts;
}

}  // namespace vllm::flash2
