// SPDX-License-Identifier: Apache-2.0
// Checks that PyTorch computes on the CPU and finds no GPU.
#include <torch/cuda.h>
#include <torch/torch.h>

int main() {
  const torch::Tensor ones = torch::ones({2, 3});
  const bool right = torch::equal(ones.matmul(ones.t()), torch::full({2, 2}, 3.0F));
  return right && !torch::cuda::is_available() ? 0 : 1;
}
