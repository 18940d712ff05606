// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/rows.h"

namespace vllm {

// Activation functions, computed in float32.
enum class Activation {
  kSilu,       // x * sigmoid(x)
  kGelu,       // x * Phi(x), Phi the standard normal distribution (Hendrycks and Gimpel,
               // arXiv:1606.08415)
  kGeluTanh,   // x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), the same paper's approximation
  kGeluQuick,  // x * sigmoid(1.702 x), the same paper's other approximation
  kReluSquared,  // max(x, 0)^2
};

// out[r, i] = activation(input[r, i]). out and input have the same dtype, count and width, and may
// share memory.
void Activate(Activation activation, const Rows& out, const Rows& input);

// The positions of the gate x and the factor y of an element in a row of twice the width.
enum class Layout {
  kGateFirst,    // x in the first half, y in the second
  kGateLast,     // y in the first half, x in the second
  kInterleaved,  // x, y, x, y, ...
};

struct Gate {
  enum Kind {
    kSilu,         // silu(x) * y
    kGelu,         // gelu(x) * y
    kGeluTanh,     // the same with the approximation by tanh
    kFatRelu,      // (x if x > limit else 0) * y
    kClampedSilu,  // with x up to limit and y between -limit and limit: x * sigmoid(alpha x) * (y +
                   // beta)
  };
  Kind kind = kSilu;
  Layout layout = Layout::kGateFirst;
  float limit = 0.0f;
  float alpha = 1.0f;
  float beta = 0.0f;
};

// out[r, i] = the gate applied to x and y. out and input have the same dtype and count, and
// input.width is 2 * out.width. They do not overlap.
void ActivateAndMul(const Gate& gate, const Rows& out, const Rows& input);

// out[r, i] = silu(x) * y / *scale with the gate first, as E4M3 or E5M2, rounded once. The result
// is multiplied by the reciprocal of the scale.
void ActivateAndQuantize(const Rows& out, QType type, const Rows& input, const float* scale);

}  // namespace vllm
