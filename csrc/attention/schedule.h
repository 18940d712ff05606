// SPDX-License-Identifier: Apache-2.0
// Cuts the work of an attention call into pieces.
#pragma once

#include <cstdint>
#include <vector>

namespace vllm {

// One request. Its new tokens, which are the queries, are the last `query_tokens` of its seq_len
// tokens.
struct AttentionRequest {
  int64_t query_begin = 0;  // the first new token's row of the query
  int64_t query_tokens = 0;
  int64_t seq_len = 0;
  bool causal = true;

  int64_t Position(int64_t query_token) const { return seq_len - query_tokens + query_token; }
};

// The keys that a token sees: [begin, end) in its request.
struct Visible {
  int64_t begin = 0;
  int64_t end = 0;
};

// `window` is the number of tokens before a token that it sees, itself included, and also the
// number after it if attention is not causal. 0 or less: no limit.
Visible FindVisibleKeys(const AttentionRequest& request, int64_t query_token, int64_t window);

// How one request is cut.
struct RequestCut {
  int32_t query_tokens = 0;
  int32_t seq_len = 0;
  int32_t tile_tokens = 1;    // new tokens that are computed together and share each load of a key
  int32_t chunk = INT32_MAX;  // keys after which another thread may continue
};

// A piece of work: some new tokens of a request and some of its keys, for one key head.
struct WorkItem {
  int32_t request = 0;
  int32_t first_token = 0;  // of the request's new tokens
  int32_t tokens = 0;
  int64_t keys_begin = 0;
  int64_t keys_end = 0;
  int32_t splits =
      1;  // number of pieces of the keys of these tokens; if several, the results are merged
  int32_t split = 0;
  int64_t slot = 0;  // index of this piece among those to be merged
};

// Cuts requests for `threads` threads. heads_per_key is the number of query heads that share a key
// head.
std::vector<RequestCut> CutRequests(const std::vector<AttentionRequest>& requests,
                                    int64_t heads_per_key, int64_t key_heads, int64_t window,
                                    bool split_keys, int64_t threads);

// Returns the pieces in the order in which they should start, largest first. They cover everything
// that is visible, even where the cuts assumed otherwise.
std::vector<WorkItem> MakeWorkItems(const std::vector<AttentionRequest>& requests,
                                    const std::vector<RequestCut>& cuts, int64_t window);

}  // namespace vllm
