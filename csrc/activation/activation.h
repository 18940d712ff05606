// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/rows.h"

namespace vllm {

// Activation functions, in float32.
enum class Activation {
  kSilu,       // x * sigmoid(x)
  kGelu,       // x * Phi(x), Phi the standard normal distribution (Hendrycks and Gimpel, arXiv:1606.08415)
  kGeluTanh,   // x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), the same paper's approximation
  kGeluQuick,  // x * sigmoid(1.702 x), the same paper's other approximation
};

// out[r, i] = activation(input[r, i]). out and input have the same dtype, count and width; they may be the same memory.
void Activate(Activation activation, const Rows& out, const Rows& input);

// out[r, i] = activation(input[r, i]) * input[r, out.width + i]. Same dtype and count; input.width = 2 * out.width; no overlap.
void ActivateAndMul(Activation activation, const Rows& out, const Rows& input);

}  // namespace vllm
