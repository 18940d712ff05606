// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/rows.h"

namespace vllm {

// tokens[r] = the index of the largest logit of row r; the first of equal ones. NaN counts as
// larger than any number. Rows have at least one element.
void ChooseTokensGreedily(const Rows& logits, int64_t* tokens);

// tokens[r] = argmax_i(logits[r, i] + g(seeds[r], i)), where the g are independent samples of
// Gumbel's distribution. This is a sample of softmax(logits[r]), by the Gumbel-max trick (Gumbel,
// Statistical Theory of Extreme Values, 1954; Maddison et al., A* Sampling, 2014, arXiv:1411.0030).
//
// g(seed, i) = -log(-log(1 - c)) in float64, where c = (h_i * 2^32 + l_i + 1/2) / 2^48 and the
// 16-bit number h_i and the 32-bit number l_i are uniform. Both come from Philox4x32 with seven
// rounds, the fewest that pass BigCrush (Salmon et al., Parallel Random Numbers: As Easy as 1, 2,
// 3, SC 2011, table 2), keyed with the seed:
//   h_i   half i % 8 (low half of word 0, high half of word 0, low half of word 1, ...) of the
//         output for the counter (i / 8 mod 2^32, i / 8 / 2^32, 0, 0)
//   l_i   word i % 4 of the output for the counter (i / 4 mod 2^32, i / 4 / 2^32, 1, 0)
// A token therefore depends only on its row's logits and seed, not on the batch, the threads or the
// instruction set.
//
// Of equal sums, the one with the larger g wins, then the first. Tokens with logit -infinity are
// not chosen, unless all logits are -infinity: then the result is 0. The first NaN wins over every
// number. `seed_stride` is in elements.
void SampleTokens(const Rows& logits, const int64_t* seeds, int64_t seed_stride, int64_t* tokens);

}  // namespace vllm
