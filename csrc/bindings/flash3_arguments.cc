// SPDX-License-Identifier: Apache-2.0
#include "bindings/flash3_arguments.h"

#include <string>

#include "attention/flash3/run.h"
#include "bindings/new_tensor.h"
#include "core/gpu/stream.h"

namespace vllm::flash3 {
namespace {

using torch::headeronly::ScalarType;

constexpr int64_t kLargestHead = kHeadSizes[kHeadSizeCount - 1];
int RoundUp(int size) { return (size + 127) / 128 * 128; }

}  // namespace

int64_t GetStride(const Argument& argument, size_t dim) {
  const int64_t stride = argument.strides()[dim];
  return argument.shape()[dim] > 1 ? stride
                                   : (stride + flash::kLoad - 1) / flash::kLoad * flash::kLoad;
}

int* CheckOptionalInts(const char* op, const char* name, const std::optional<Tensor>& tensor,
                       int64_t count, const char* why) {
  return tensor.has_value() ? CheckInts(Argument(op, name, *tensor), count, why) : nullptr;
}

void SetHeads(Params* params, const char* op, int64_t heads, int64_t kv_heads, int64_t head_size,
              int64_t value_size, bool bfloat16) {
  if (head_size < 1 || head_size > kLargestHead || head_size % flash::kLoad != 0) {
    FailOp(op, "the head size is " + std::to_string(head_size) +
                   ", expected a multiple of 8 up to " + std::to_string(kLargestHead));
  }
  if (value_size != head_size) {
    FailOp(op, "the head size of v is " + std::to_string(value_size) + " and that of k is " +
                   std::to_string(head_size) +
                   ", expected the same: kernels for two sizes are not built");
  }
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0) {
    FailOp(op, "k has " + std::to_string(kv_heads) + " heads, expected a divisor of the " +
                   std::to_string(heads) + " heads of q");
  }
  const int compiled = FindCompiledHeadSize(static_cast<int>(head_size), bfloat16);
  if (compiled == 0) {
    const std::string dtype = bfloat16 ? "bfloat16" : "float16";
    FailOp(op, "this library has no kernel for heads of size " + std::to_string(head_size) +
                   " in " + dtype + ", expected at most the largest compiled size (" +
                   ListCompiledHeadSizes(bfloat16) + "), or a library built with VLLM_FA_SET=full");
  }
  params->h = CheckInt(op, "the number of heads", heads);
  params->h_k = static_cast<int>(kv_heads);
  params->d = params->dv = static_cast<int>(head_size);
  params->d_rounded = params->dv_rounded = compiled;
  params->is_bf16 = bfloat16;
}

void SetQueries(Params* params, const Argument& q, const Tensor& out_tensor) {
  const Argument out("fwd", "out", out_tensor);
  const size_t dims = q.shape().size();
  params->q_ptr = q.tensor().data_ptr();
  params->q_row_stride = GetStride(q, dims - 3);
  params->q_head_stride = GetStride(q, dims - 2);
  params->o_ptr = out_tensor.data_ptr();
  params->o_row_stride = GetStride(out, dims - 3);
  params->o_head_stride = GetStride(out, dims - 2);
  if (dims == 4) {
    params->q_batch_stride = GetStride(q, 0);
    params->o_batch_stride = GetStride(out, 0);
  }
  params->seqlen_q_rounded = RoundUp(params->seqlen_q);
}

void SetKeys(Params* params, const Argument& k, const Argument& v) {
  const size_t dims = k.shape().size();
  params->k_ptr = k.tensor().data_ptr();
  params->v_ptr = v.tensor().data_ptr();
  params->k_row_stride = GetStride(k, dims - 3);
  params->v_row_stride = GetStride(v, dims - 3);
  params->k_head_stride = GetStride(k, dims - 2);
  params->v_head_stride = GetStride(v, dims - 2);
  params->v_dim_stride = 1;
  if (dims == 4) {
    params->k_batch_stride = GetStride(k, 0);
    params->v_batch_stride = GetStride(v, 0);
  }
  params->seqlen_k_rounded = RoundUp(params->seqlen_k);
}

void SetPages(Params* params, const Argument& table, const Argument& k) {
  table.CheckLastDimensionContiguous();
  const int64_t rows = k.shape()[1];
  if (rows < 1) k.Fail("has pages of 0 rows", "at least 1");
  params->page_table = static_cast<int*>(table.tensor().data_ptr());
  params->page_table_batch_stride = table.strides()[0];
  params->page_size = static_cast<int>(rows);
  params->num_pages = static_cast<int>(k.shape()[0]);
}

void SetNewKeys(Params* params, const char* op, const Argument& q, const NewKeys& given) {
  flash::CheckBothOrNeither(op, "k_new", given.k, "v_new", given.v);
  flash::CheckBothOrNeither(op, "rotary_cos", given.rotary_cos, "rotary_sin", given.rotary_sin);
  if (!given.k.has_value()) {
    if (given.rotary_cos.has_value())
      FailOp(op, "rotary_cos is given without k_new, expected new keys to rotate");
    if (given.cu_seqlens.has_value())
      FailOp(op, "cu_seqlens_k_new is given without k_new, expected both");
    return;
  }
  const Argument k(op, "k_new", *given.k), v(op, "v_new", *given.v);
  if (params->seqused_k == nullptr)
    k.Fail("is given without seqused_k", "the lengths of the cached sequences");
  if (params->cu_seqlens_k != nullptr)
    k.Fail("is given together with cu_seqlens_k", "only one of them");
  if (params->seqlen_q > params->seqlen_k) {
    q.Fail("has up to " + std::to_string(params->seqlen_q) + " rows",
           "at most the " + std::to_string(params->seqlen_k) + " of the cache");
  }
  const bool packed = given.cu_seqlens.has_value();
  const size_t dims = packed ? 3 : 4;
  CheckHalves(k, dims, q);
  CheckHalves(v, dims, q);
  const int64_t rows = k.shape()[dims - 3];
  if (packed) {
    k.CheckShape({rows, params->h_k, params->d}, "rows of the cache");
  } else {
    k.CheckShape({params->b, rows, params->h_k, params->d}, "rows of the cache for each sequence");
  }
  v.CheckShape(k.shape(), "the shape of k_new");
  params->cu_seqlens_knew =
      CheckOptionalInts(op, "cu_seqlens_k_new", given.cu_seqlens, int64_t{params->b} + 1,
                        "one more than the number of sequences");
  params->seqlen_knew = packed ? 0 : CheckInt(op, "the number of new keys", rows);
  params->total_knew = CheckInt(op, "the number of new keys", packed ? rows : params->b * rows);
  params->knew_ptr = k.tensor().data_ptr();
  params->vnew_ptr = v.tensor().data_ptr();
  params->knew_row_stride = GetStride(k, dims - 3);
  params->vnew_row_stride = GetStride(v, dims - 3);
  params->knew_head_stride = GetStride(k, dims - 2);
  params->vnew_head_stride = GetStride(v, dims - 2);
  if (!packed) {
    params->knew_batch_stride = GetStride(k, 0);
    params->vnew_batch_stride = GetStride(v, 0);
  }
  if (!given.rotary_cos.has_value()) return;

  flash::SetRotation(params, op, q, {*given.rotary_cos, *given.rotary_sin, given.interleaved});
  params->seqlens_rotary = CheckOptionalInts(op, "seqlens_rotary", given.seqlens_rotary, params->b,
                                             "a position for each sequence");
}

void SetScores(Params* params, double softmax_scale, double softcap) {
  params->scale_softmax = static_cast<float>(softmax_scale);
  params->softcap = static_cast<float>(softcap);
  flash::DisableDropout(params);
}

void SetDevice(Params* params, const char* op, int64_t sm_margin) {
  const int multiprocessors = gpu::GetMultiprocessorCount();
  if (sm_margin < 0 || sm_margin >= multiprocessors) {
    FailOp(op, "sm_margin is " + std::to_string(sm_margin) + ", expected 0 to " +
                   std::to_string(multiprocessors - 1));
  }
  params->arch = kArchitecture;
  params->num_sm = multiprocessors - static_cast<int>(sm_margin);
}

Parts SetParts(Params* params, const Tensor& q) {
  Parts parts;
  if (params->num_splits < 2) return parts;
  // Concatenated sequences are treated as one long sequence here.
  const bool packed = params->cu_seqlens_q != nullptr;
  const int64_t rows = packed ? params->total_q : params->seqlen_q, batch = packed ? 1 : params->b;
  const int64_t lse_of_sequence = params->h * rows;
  parts.lse = MakeTensor<1>(q, {params->num_splits * batch * lse_of_sequence}, ScalarType::Float);
  parts.out = MakeTensor<1>(q, {params->num_splits * batch * lse_of_sequence * params->dv},
                            ScalarType::Float);
  params->softmax_lseaccum_ptr = parts.lse->data_ptr();
  params->lseaccum_head_stride = rows;
  params->lseaccum_batch_stride = packed ? 0 : lse_of_sequence;
  params->lseaccum_split_stride = batch * lse_of_sequence;
  params->oaccum_ptr = parts.out->data_ptr();
  params->oaccum_row_stride = params->dv;
  params->oaccum_head_stride = rows * params->dv;
  params->oaccum_batch_stride = packed ? 0 : lse_of_sequence * params->dv;
  params->oaccum_split_stride = batch * lse_of_sequence * params->dv;
  return parts;
}

}  // namespace vllm::flash3
