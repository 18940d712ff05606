// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bindings/arguments.h"
#include "rotary/rotary.h"

namespace vllm {

// Checks cos_sin_cache, [max_position, rotary_dim]: the cosines of a position, then its sines.
inline RotaryCache CheckRotaryCache(const Argument& cache) {
  cache.CheckOnDevice().CheckFloating();
  if (cache.shape().size() != 2 || cache.shape()[1] % 2 != 0) {
    cache.FailShape("[max_position, rotary_dim] with an even rotary_dim for cosines, then sines");
  }
  cache.CheckLastDimensionContiguous();
  return {cache.tensor().data_ptr(), cache.dtype(), cache.shape()[0], cache.shape()[1],
          cache.strides()[0]};
}

}  // namespace vllm
