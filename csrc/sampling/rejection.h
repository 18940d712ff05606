// SPDX-License-Identifier: Apache-2.0
// Rejection sampling of tokens that a draft model proposed: Leviathan et al., Fast Inference from
// Transformers via Speculative Decoding, 2023 (arXiv:2211.17192), algorithm 1.
#pragma once

#include <cstdint>

namespace vllm {

// A vector of integers of either size, with any distance between them.
class Integers {
 public:
  Integers() = default;
  Integers(void* data, bool wide, int64_t stride) : data_(data), wide_(wide), stride_(stride) {}

  int64_t operator[](int64_t i) const {
    if (wide_) return static_cast<const int64_t*>(data_)[i * stride_];
    return static_cast<const int32_t*>(data_)[i * stride_];
  }
  void Set(int64_t i, int64_t value) const {
    if (wide_) {
      static_cast<int64_t*>(data_)[i * stride_] = value;
    } else {
      static_cast<int32_t*>(data_)[i * stride_] = static_cast<int32_t>(value);
    }
  }
  // Returns the vector from element `i` on.
  Integers From(int64_t i) const {
    const int64_t bytes = i * stride_ * (wide_ ? 8 : 4);
    return {static_cast<char*>(data_) + bytes, wide_, stride_};
  }

 private:
  void* data_ = nullptr;
  bool wide_ = true;
  int64_t stride_ = 1;
};

// The drafts of a batch, those of one request after those of the other. `ends` are the ends of the
// requests' drafts.
struct Drafts {
  int64_t requests = 0;
  Integers ends;
  Integers tokens;

  int64_t Begin(int64_t request) const { return request == 0 ? 0 : ends[request - 1]; }
  int64_t End(int64_t request) const { return ends[request]; }
};

// Rows of probabilities, one for each draft or request. `data` may be null.
struct Probabilities {
  const float* data = nullptr;
  int64_t stride = 0;
  const float* Row(int64_t row) const { return data + row * stride; }
};

// Numbers in [0, 1), one for each draft.
struct Uniforms {
  const void* data = nullptr;
  bool wide = false;  // float64, else float32
  float operator[](int64_t i) const {
    return wide ? static_cast<float>(static_cast<const double*>(data)[i])
                : static_cast<const float*>(data)[i];
  }
};

// Where the tokens of a request go: row `request` of `tokens`, whose rows are `row` elements apart.
// Tokens after a rejected one are not written.
struct Accepted {
  Integers tokens;
  int64_t row = 0;
  Integers bonus;                // the token after drafts that are all accepted, by request
  const bool* greedy = nullptr;  // by request; null if all are
  int64_t greedy_stride = 1;
  bool IsGreedy(int64_t request) const {
    return greedy == nullptr || greedy[request * greedy_stride];
  }
};

// For greedy requests: writes the target's tokens up to the first that differs from the draft.
void AcceptGreedily(const Accepted& accepted, const Drafts& drafts, const Integers& target);

// For the other requests: accepts draft t if q(t) > 0 and p(t) / q(t) >= u, where p are the
// target's and q the draft's probabilities (1 if there are none). A negative draft is never
// accepted. The first one that is not is replaced by the recovered token.
void AcceptRandomly(const Accepted& accepted, const Drafts& drafts, const Probabilities& target,
                    const Probabilities& draft, const Integers& recovered,
                    const Uniforms& uniforms);

// Chooses, for each draft, the token with the largest max(p - q, 0) * weight of the `vocabulary`
// tokens: the first of equal ones, 0 if there is no number. Without probabilities of the draft, q
// is 1 for the draft and 0 for all others. Rows of `weights` are those of requests.
void RecoverTokens(const Integers& output, const Drafts& drafts, const Probabilities& target,
                   const Probabilities& draft, const Probabilities& weights, int64_t vocabulary);

}  // namespace vllm
