// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/device.h"

namespace vllm {

// The expert numbers of routes, [tokens, topk], as int32 or int64. Strides are in elements.
struct ExpertIds {
  const void* data = nullptr;
  bool wide = false;
  int64_t tokens = 0;
  int64_t topk = 0;
  int64_t token_stride = 0;
  int64_t choice_stride = 0;

  VLLM_HOST_DEVICE int64_t Get(int64_t token, int64_t choice) const {
    const int64_t offset = token * token_stride + choice * choice_stride;
    return wide ? static_cast<const int64_t*>(data)[offset]
                : static_cast<const int32_t*>(data)[offset];
  }
};

}  // namespace vllm
