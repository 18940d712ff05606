// SPDX-License-Identifier: Apache-2.0
// How the work of one attention call is cut into pieces.
#pragma once

#include <cstdint>
#include <vector>

namespace vllm {

// One request: its new tokens, which ask, are the last `query_tokens` of its seq_len tokens.
struct AttentionRequest {
  int64_t query_begin = 0;  // the first new token's row of the query
  int64_t query_tokens = 0;
  int64_t seq_len = 0;
  bool causal = true;

  int64_t Position(int64_t query_token) const { return seq_len - query_tokens + query_token; }
};

// Which keys a token sees: [begin, end) in its request.
struct Visible {
  int64_t begin = 0;
  int64_t end = 0;
};

// window: how many tokens back a token sees, itself included, and as many ahead where it is not
// causal; 0 or less: no limit.
Visible VisibleKeys(const AttentionRequest& request, int64_t query_token, int64_t window);

// The cut of one request.
struct RequestCut {
  int32_t query_tokens = 0;
  int32_t seq_len = 0;
  int32_t tile_tokens =
      1;  // new tokens that are computed together, so that they share each load of a key
  int32_t chunk = INT32_MAX;  // keys after which another thread may take over
};

// A piece of work: some new tokens of a request against some of its keys, for one key head.
struct WorkItem {
  int32_t request = 0;
  int32_t first_token = 0;  // of the request's new tokens
  int32_t tokens = 0;
  int64_t keys_begin = 0;
  int64_t keys_end = 0;
  int32_t splits =
      1;  // pieces that the keys of these tokens were cut into; more than one: results are merged
  int32_t split = 0;
  int64_t slot = 0;  // number of this piece among those to be merged
};

// Cuts requests for `threads` threads. heads_per_key: query heads that share a key head.
std::vector<RequestCut> CutRequests(const std::vector<AttentionRequest>& requests,
                                    int64_t heads_per_key, int64_t key_heads, int64_t window,
                                    bool split_keys, int64_t threads);

// The pieces in the order in which they should be begun, largest first. They cover everything that
// is visible, whatever the cut assumed.
std::vector<WorkItem> WorkItems(const std::vector<AttentionRequest>& requests,
                                const std::vector<RequestCut>& cuts, int64_t window);

}  // namespace vllm
