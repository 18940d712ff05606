// SPDX-License-Identifier: Apache-2.0
#include "attention/schedule.h"

#include <algorithm>

namespace vllm {
namespace {

// The rows of queries (tokens times heads) of one tile. Many products amortise each load of a key
// through the caches, and queries, scores and sums still fit into the second-level cache.
constexpr int64_t kTileRows = 128;
// Below this many keys, merging costs more than another thread gains.
constexpr int64_t kMinChunk = 256;
// The number of pieces for each thread; a late thread then does not delay the others for long.
constexpr int64_t kPiecesPerThread = 4;
// Loading a key costs as much as multiplying it by this many rows.
constexpr int64_t kLoadRows = 8;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

Visible GetTileKeys(const AttentionRequest& request, int64_t first, int64_t tokens,
                    int64_t window) {
  return {FindVisibleKeys(request, first, window).begin,
          FindVisibleKeys(request, first + tokens - 1, window).end};
}

}  // namespace

Visible FindVisibleKeys(const AttentionRequest& request, int64_t query_token, int64_t window) {
  const int64_t position = request.Position(query_token);
  Visible keys{0, request.seq_len};
  if (window > 0) {
    keys.begin = std::clamp<int64_t>(position - window + 1, 0, request.seq_len);
    keys.end = std::clamp<int64_t>(position + window, 0, request.seq_len);
  }
  if (request.causal) keys.end = std::clamp<int64_t>(position + 1, 0, keys.end);
  keys.begin = std::min(keys.begin, keys.end);
  return keys;
}

std::vector<RequestCut> CutRequests(const std::vector<AttentionRequest>& requests,
                                    int64_t heads_per_key, int64_t key_heads, int64_t window,
                                    bool split_keys, int64_t threads) {
  std::vector<RequestCut> cuts(requests.size());
  const int64_t tile_tokens = std::max<int64_t>(1, kTileRows / heads_per_key);
  int64_t total = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const AttentionRequest& request = requests[i];
    cuts[i].query_tokens = static_cast<int32_t>(request.query_tokens);
    cuts[i].seq_len = static_cast<int32_t>(request.seq_len);
    cuts[i].tile_tokens =
        static_cast<int32_t>(std::clamp<int64_t>(request.query_tokens, 1, tile_tokens));
    for (int64_t first = 0; first < request.query_tokens; first += tile_tokens) {
      const int64_t tokens = std::min(tile_tokens, request.query_tokens - first);
      const Visible keys = GetTileKeys(request, first, tokens, window);
      total += (keys.end - keys.begin) * std::max(kLoadRows, tokens * heads_per_key) * key_heads;
    }
  }
  if (!split_keys || threads <= 1) return cuts;
  const int64_t piece = CeilDiv(total, threads * kPiecesPerThread);
  for (RequestCut& cut : cuts) {
    const int64_t chunk = std::max(
        kMinChunk, CeilDiv(piece, std::max<int64_t>(kLoadRows, cut.tile_tokens * heads_per_key)));
    // Chunks are whole panels of keys, and MakeWorkItems makes no cut for less than half a chunk.
    cut.chunk = static_cast<int32_t>(std::min<int64_t>(CeilDiv(chunk, 64) * 64, INT32_MAX));
  }
  return cuts;
}

std::vector<WorkItem> MakeWorkItems(const std::vector<AttentionRequest>& requests,
                                    const std::vector<RequestCut>& cuts, int64_t window) {
  std::vector<WorkItem> items;
  int64_t slots = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const RequestCut& cut = cuts[i];
    for (int64_t first = 0; first < requests[i].query_tokens; first += cut.tile_tokens) {
      const int64_t tokens = std::min<int64_t>(cut.tile_tokens, requests[i].query_tokens - first);
      const Visible keys = GetTileKeys(requests[i], first, tokens, window);
      const int64_t splits =
          std::max<int64_t>(1, (keys.end - keys.begin + cut.chunk / 2) / cut.chunk);
      // Cuts are between panels of keys.
      const auto boundary = [&](int64_t split) {
        return split == splits ? keys.end
                               : (keys.begin + (keys.end - keys.begin) * split / splits) / 16 * 16;
      };
      for (int64_t split = 0; split < splits; ++split) {
        const int64_t begin = split == 0 ? keys.begin : std::max(keys.begin, boundary(split));
        items.push_back({static_cast<int32_t>(i), static_cast<int32_t>(first),
                         static_cast<int32_t>(tokens), begin, boundary(split + 1),
                         static_cast<int32_t>(splits), static_cast<int32_t>(split),
                         splits == 1 ? 0 : slots++});
      }
    }
  }
  std::stable_sort(items.begin(), items.end(), [](const WorkItem& a, const WorkItem& b) {
    return (a.keys_end - a.keys_begin) * a.tokens > (b.keys_end - b.keys_begin) * b.tokens;
  });
  return items;
}

}  // namespace vllm
