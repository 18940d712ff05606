// SPDX-License-Identifier: Apache-2.0
#include "attention/attention.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "attention/isa.h"
#include "bindings/attention_arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"
#include "bindings/string_argument.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

// The scheduler's tensor has kHeader numbers, then kPerRequest for each request.
constexpr int64_t kHeader = 8;
constexpr int64_t kPerRequest = 4;
constexpr int32_t kMagic = 0x41545431;  // "ATT1"

// Checks the cumulative query lengths, [num_req + 1], and the lengths, [num_req], and returns them
// as requests.
std::vector<AttentionRequest> CheckRequests(const Argument& query_start_loc,
                                            const Argument& seq_lens, int64_t count, bool causal,
                                            const std::optional<Tensor>& dynamic_causal,
                                            const char* op) {
  const Ints starts = CheckInts(query_start_loc, count + 1, "one more than the number of requests");
  const Ints lengths = CheckInts(seq_lens, count, "the number of requests");
  const int32_t same = causal ? 1 : 0;
  Ints causals{&same, 0};
  if (dynamic_causal.has_value()) {
    causals =
        CheckInts(Argument(op, "dynamic_causal", *dynamic_causal), count, "the number of requests");
  }
  std::vector<AttentionRequest> requests(static_cast<size_t>(count));
  for (size_t i = 0; i < requests.size(); ++i) {
    if (starts[i] < 0 || starts[i + 1] < starts[i]) {
      query_start_loc.Fail("goes from " + std::to_string(starts[i]) + " to " +
                               std::to_string(starts[i + 1]) + " at request " + std::to_string(i),
                           "numbers from 0 on that do not decrease");
    }
    if (lengths[i] < 0) {
      seq_lens.Fail("holds " + std::to_string(lengths[i]) + " for request " + std::to_string(i),
                    "lengths of 0 or more");
    }
    requests[i] = {starts[i], starts[i + 1] - starts[i], lengths[i], causals[i] != 0};
  }
  return requests;
}

Tensor GetSchedulerMetadataOp(int64_t num_req, int64_t num_heads_q, int64_t num_heads_kv,
                              int64_t head_dim, Tensor seq_lens_tensor, ScalarType dtype,
                              Tensor query_start_loc_tensor, bool casual, int64_t window_size,
                              StringArgument isa_hint, bool enable_kv_split,
                              std::optional<Tensor> dynamic_causal, StringArgument kv_cache_dtype) {
  const char* op = "get_scheduler_metadata";
  CheckAtLeast(op, "num_req", num_req, 0);
  if (num_heads_kv < 1 || num_heads_q < 1 || num_heads_q % num_heads_kv != 0) {
    FailOp(op, "num_heads_q is " + std::to_string(num_heads_q) + " and num_heads_kv " +
                   std::to_string(num_heads_kv) +
                   ", expected positive numbers, the first a multiple of the second");
  }
  CheckAtLeast(op, "head_dim", head_dim, 1);
  CheckDType(op, "dtype", dtype, {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
  CheckIsa(op, "isa_hint", isa_hint.value);
  CheckCacheDType(op, kv_cache_dtype.value, DType::kFloat32);
  const Argument seq_lens(op, "seq_lens", seq_lens_tensor);
  const Argument query_start_loc(op, "query_start_loc", query_start_loc_tensor);
  const std::vector<AttentionRequest> requests =
      CheckRequests(query_start_loc, seq_lens, num_req, casual, dynamic_causal, op);
  const std::vector<RequestCut> cuts =
      CutRequests(requests, num_heads_q / num_heads_kv, num_heads_kv, window_size, enable_kv_split,
                  torch::stable::get_num_threads());
  Tensor metadata =
      MakeTensor<1>(seq_lens_tensor, {kHeader + kPerRequest * num_req}, ScalarType::Int);
  int32_t* numbers = static_cast<int32_t*>(metadata.data_ptr());
  const int64_t header[kHeader] = {kMagic, num_req, num_heads_q, num_heads_kv, head_dim, 0, 0, 0};
  for (const int64_t number : header) *numbers++ = static_cast<int32_t>(number);
  for (const RequestCut& cut : cuts) {
    for (const int32_t number : {cut.query_tokens, cut.seq_len, cut.tile_tokens, cut.chunk})
      *numbers++ = number;
  }
  return metadata;
}

// Returns the cuts that GetSchedulerMetadataOp stored, if they are for these requests.
std::vector<RequestCut> CheckCuts(const Argument& metadata, const Ints& numbers,
                                  const std::vector<AttentionRequest>& requests) {
  std::vector<RequestCut> cuts(requests.size());
  size_t at = kHeader;
  for (size_t i = 0; i < cuts.size(); ++i, at += kPerRequest) {
    cuts[i] = {numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]};
    const AttentionRequest& request = requests[i];
    if (cuts[i].query_tokens != request.query_tokens || cuts[i].seq_len != request.seq_len) {
      metadata.Fail("was made for request " + std::to_string(i) + " with " +
                        std::to_string(cuts[i].query_tokens) + " new tokens of " +
                        std::to_string(cuts[i].seq_len),
                    std::to_string(request.query_tokens) + " of " +
                        std::to_string(request.seq_len) + ", as query_start_loc and seq_lens say");
    }
    if (cuts[i].tile_tokens < 1 ||
        cuts[i].tile_tokens > std::max<int64_t>(1, request.query_tokens) ||
        cuts[i].chunk < CachePages::kPanel) {
      metadata.Fail("is corrupt", "what get_scheduler_metadata returned");
    }
  }
  return cuts;
}

// Returns one number for each query head, as float32.
std::vector<float> CheckPerHead(const Argument& argument, int64_t heads) {
  return argument.CheckOnDevice()
      .CheckFloating()
      .CheckShape({heads}, "one number for each query head")
      .ToFloats();
}

void CheckScale(const char* op, const char* name, double scale) {
  if (!(scale > 0))
    FailOp(op, std::string(name) + " is " + std::to_string(scale) + ", expected more than 0");
}

// The arguments of cpu_attention_with_kv_cache, in the order of its schema.
struct AttentionArguments {
  Tensor query, key_cache, value_cache, output, query_start_loc, seq_lens;
  double scale;
  bool causal;
  std::optional<Tensor> alibi_slopes;
  int64_t sliding_window_size;
  Tensor block_table;
  double softcap;
  Tensor scheduler_metadata;
  std::optional<Tensor> s_aux, dynamic_causal;
  double k_scale, v_scale;
  const std::string& kv_cache_dtype;
};

// One call of cpu_attention_with_kv_cache. Each step checks some of the arguments and sets the
// parts of the call that depend on them.
class CacheAttentionCall {
 public:
  explicit CacheAttentionCall(const AttentionArguments& given)
      : given_(given), query_(kOp, "query", given.query) {}

  void Run() {
    SetQueryAndOutput();
    SetCaches();
    SetScores();
    SetRequests();
    SetBlocks();
    RunPagedAttention(call_);
  }

 private:
  static constexpr const char* kOp = "cpu_attention_with_kv_cache";

  void SetQueryAndOutput() {
    const Argument output(kOp, "output", given_.output);
    call_.query = CheckHeads(query_);
    output.CheckSameDType(query_).CheckShape(query_.shape(), "the shape of query").CheckWritable();
    call_.output = CheckHeads(output);
  }

  void SetCaches() {
    const CacheDType dtype = CheckCacheDType(kOp, given_.kv_cache_dtype, query_.dtype());
    const Argument key_cache(kOp, "key_cache", given_.key_cache),
        value_cache(kOp, "value_cache", given_.value_cache);
    call_.key = CheckPages(key_cache, dtype, query_);
    value_cache.CheckShape(key_cache.shape(), "the shape of key_cache");
    call_.value = CheckPages(value_cache, dtype, query_);
    if (call_.key.heads < 1 || call_.query.heads % call_.key.heads != 0) {
      query_.Fail("has " + std::to_string(call_.query.heads) + " heads",
                  "a multiple of the " + std::to_string(call_.key.heads) + " heads of key_cache");
    }
    if (dtype == CacheDType::kFloat8E4M3 || dtype == CacheDType::kFloat8E5M2) {
      CheckScale(kOp, "k_scale", given_.k_scale);
      CheckScale(kOp, "v_scale", given_.v_scale);
      call_.key_scale = static_cast<float>(given_.k_scale);
      call_.value_scale = static_cast<float>(given_.v_scale);
    }
  }

  void SetScores() {
    if (!(given_.softcap >= 0))
      FailOp(kOp, "softcap is " + std::to_string(given_.softcap) + ", expected 0 (none) or more");
    call_.scale = static_cast<float>(given_.scale);
    call_.softcap = static_cast<float>(given_.softcap);
    call_.window = given_.sliding_window_size;
    if (given_.alibi_slopes.has_value()) {
      slopes_ =
          CheckPerHead(Argument(kOp, "alibi_slopes", *given_.alibi_slopes), call_.query.heads);
      call_.alibi_slopes = slopes_.data();
    }
    if (given_.s_aux.has_value()) {
      sinks_ = CheckPerHead(Argument(kOp, "s_aux", *given_.s_aux), call_.query.heads);
      call_.sinks = sinks_.data();
    }
  }

  // Sets the requests and how get_scheduler_metadata cut them.
  void SetRequests() {
    const Argument metadata(kOp, "scheduler_metadata", given_.scheduler_metadata);
    const Ints head = CheckInts(metadata, kHeader, "what get_scheduler_metadata returned");
    const int64_t count = head[1];
    if (head[0] != kMagic || count < 0 || metadata.shape()[0] != kHeader + kPerRequest * count) {
      metadata.Fail("has no schedule", "what get_scheduler_metadata returned");
    }
    if (head[2] != call_.query.heads || head[3] != call_.key.heads ||
        head[4] != call_.key.head_size) {
      metadata.Fail("was made for " + std::to_string(head[2]) + " query heads, " +
                        std::to_string(head[3]) + " key heads and head size " +
                        std::to_string(head[4]),
                    std::to_string(call_.query.heads) + ", " + std::to_string(call_.key.heads) +
                        " and " + std::to_string(call_.key.head_size));
    }
    const Argument query_start_loc(kOp, "query_start_loc", given_.query_start_loc);
    call_.requests = CheckRequests(query_start_loc, Argument(kOp, "seq_lens", given_.seq_lens),
                                   count, given_.causal, given_.dynamic_causal, kOp);
    call_.cuts = CheckCuts(metadata, CheckInts(metadata, metadata.shape()[0], ""), call_.requests);
    if (count == 0) return;
    const int64_t end = call_.requests.back().query_begin + call_.requests.back().query_tokens;
    if (end > query_.shape()[0]) {
      query_start_loc.Fail(
          "ends at " + std::to_string(end),
          "at most " + std::to_string(query_.shape()[0]) + ", the tokens of query");
    }
  }

  void SetBlocks() {
    const Argument block_table(kOp, "block_table", given_.block_table);
    const int64_t count = static_cast<int64_t>(call_.requests.size());
    CheckBlockTable(block_table, count);
    for (int64_t i = 0; i < count; ++i) {
      const AttentionRequest& request = call_.requests[static_cast<size_t>(i)];
      if (request.query_tokens == 0) continue;
      const int64_t begin = FindVisibleKeys(request, 0, call_.window).begin;
      const int64_t end = FindVisibleKeys(request, request.query_tokens - 1, call_.window).end;
      CheckBlocks(block_table, i, begin, end, call_.key.block_size, call_.key.blocks);
    }
    call_.block_table = block_table.Data<const int32_t>();
    call_.block_table_stride = block_table.strides()[0];
  }

  const AttentionArguments& given_;
  const Argument query_;
  std::vector<float> slopes_, sinks_;
  PagedAttention call_;
};

// torch passes the arguments of a schema one by one.
void AttentionOp(Tensor query, Tensor key_cache, Tensor value_cache, Tensor output,
                 Tensor query_start_loc, Tensor seq_lens, double scale, bool causal,
                 std::optional<Tensor> alibi_slopes, int64_t sliding_window_size,
                 Tensor block_table, double softcap, Tensor scheduler_metadata,
                 std::optional<Tensor> s_aux, std::optional<Tensor> dynamic_causal, double k_scale,
                 double v_scale, StringArgument kv_cache_dtype) {
  const AttentionArguments given{query,
                                 key_cache,
                                 value_cache,
                                 output,
                                 query_start_loc,
                                 seq_lens,
                                 scale,
                                 causal,
                                 alibi_slopes,
                                 sliding_window_size,
                                 block_table,
                                 softcap,
                                 scheduler_metadata,
                                 s_aux,
                                 dynamic_causal,
                                 k_scale,
                                 v_scale,
                                 kv_cache_dtype.value};
  CacheAttentionCall(given).Run();
}

NewTokens CheckTokens(const Argument& argument) {
  const AttentionHeads heads = CheckHeads(argument);
  return {heads.tokens.data, heads.tokens.dtype, argument.shape()[0], argument.strides()[0],
          argument.strides()[1]};
}

void ReshapeAndCacheOp(Tensor key_tensor, Tensor value_tensor, Tensor key_cache_tensor,
                       Tensor value_cache_tensor, Tensor slot_mapping_tensor, StringArgument isa,
                       double k_scale, double v_scale, StringArgument kv_cache_dtype) {
  const char* op = "cpu_attn_reshape_and_cache";
  const Argument key(op, "key", key_tensor);
  const Argument value(op, "value", value_tensor);
  const NewTokens keys = CheckTokens(key);
  value.CheckSameDType(key).CheckShape(key.shape(), "the shape of key");
  const NewTokens values = CheckTokens(value);
  CheckIsa(op, "isa", isa.value);
  const CacheDType dtype = CheckCacheDType(op, kv_cache_dtype.value, key.dtype());
  const Argument key_cache(op, "key_cache", key_cache_tensor);
  const Argument value_cache(op, "value_cache", value_cache_tensor);
  const CachePages key_pages = CheckPages(key_cache.CheckWritable(), dtype, key);
  value_cache.CheckWritable().CheckShape(key_cache.shape(), "the shape of key_cache");
  const CachePages value_pages = CheckPages(value_cache, dtype, key);
  if (key_pages.heads != key.shape()[1]) {
    key_cache.Fail("has " + std::to_string(key_pages.heads) + " heads",
                   std::to_string(key.shape()[1]) + ", the heads of key");
  }
  if (dtype == CacheDType::kFloat8E4M3 || dtype == CacheDType::kFloat8E5M2) {
    CheckScale(op, "k_scale", k_scale);
    CheckScale(op, "v_scale", v_scale);
  }
  const Argument slots(op, "slot_mapping", slot_mapping_tensor);
  slots.CheckOnDevice().CheckDType(ScalarType::Long).CheckShape({keys.count}, "one slot a token");
  WriteKvCache(keys, values, key_pages, value_pages,
               static_cast<const int64_t*>(slot_mapping_tensor.data_ptr()), slots.strides()[0],
               static_cast<float>(k_scale), static_cast<float>(v_scale));
}

bool HasIsaOp(StringArgument isa) { return HasAttentionIsa(isa.value); }

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "get_scheduler_metadata(int num_req, int num_heads_q, int num_heads_kv, int head_dim, Tensor "
      "seq_lens, ScalarType dtype, Tensor query_start_loc, bool casual, int window_size, str "
      "isa_hint, bool enable_kv_split, Tensor? dynamic_causal, str kv_cache_dtype=\"auto\") -> "
      "Tensor");
  m.def(
      "cpu_attn_reshape_and_cache(Tensor key, Tensor value, Tensor! key_cache, Tensor! "
      "value_cache, Tensor slot_mapping, str isa, float k_scale=1., float v_scale=1., str "
      "kv_cache_dtype=\"auto\") -> ()");
  m.def(
      "cpu_attention_with_kv_cache(Tensor query, Tensor key_cache, Tensor value_cache, Tensor! "
      "output, Tensor query_start_loc, Tensor seq_lens, float scale, bool causal, Tensor? "
      "alibi_slopes, SymInt sliding_window_size, Tensor block_table, float softcap, Tensor "
      "scheduler_metadata, Tensor? s_aux, Tensor? dynamic_causal, float k_scale=1., float "
      "v_scale=1., str kv_cache_dtype=\"auto\") -> ()");
  m.def("cpu_attn_has_isa(str isa) -> bool");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("get_scheduler_metadata", VLLM_BOX(vllm::GetSchedulerMetadataOp));
  m.impl("cpu_attn_reshape_and_cache", VLLM_BOX(vllm::ReshapeAndCacheOp));
  m.impl("cpu_attention_with_kv_cache", VLLM_BOX(vllm::AttentionOp));
}

// No tensor argument determines the device.
STABLE_TORCH_LIBRARY_IMPL(_C, CompositeExplicitAutograd, m) {
  m.impl("cpu_attn_has_isa", VLLM_BOX(vllm::HasIsaOp));
}
