// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstddef>
#include <cstdio>

float sum_of_exp(const float* values, std::size_t count);
const char* target();

int main() {
  float values[37];
  double expected = 0;
  for (int i = 0; i < 37; ++i) expected += std::exp(values[i] = 0.1f * static_cast<float>(i - 18));
  const double sum = sum_of_exp(values, 37);
  std::printf("%s: %f, expected %f\n", target(), sum, expected);
  return std::fabs(sum - expected) > 1e-4 * expected;
}
