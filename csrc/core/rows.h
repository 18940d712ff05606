// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"

namespace vllm {

// A view of a tensor as `count` rows of `width` elements. The elements of a row are adjacent. The
// rows can be anywhere: leading dimensions keep their strides, after neighbours that can be
// traversed with one stride have been merged. A contiguous tensor, and a slice of its last
// dimension, have one leading dimension after merging.
struct Rows {
  static constexpr int kMaxDims = 6;

  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t width = 0;
  int64_t count = 0;
  int dims = 0;                    // leading dimensions in use
  int64_t sizes[kMaxDims] = {};    // outermost first
  int64_t strides[kMaxDims] = {};  // in elements

  // Returns the number of elements from the first row to row `row`, 0 <= row < count.
  VLLM_HOST_DEVICE int64_t Offset(int64_t row) const {
    if (dims == 1) return row * strides[0];
    int64_t offset = 0;
    for (int dim = dims - 1; dim >= 0; --dim) {
      offset += row % sizes[dim] * strides[dim];
      row /= sizes[dim];
    }
    return offset;
  }

  template <typename T>
  VLLM_HOST_DEVICE T* Row(int64_t row) const {
    return static_cast<T*>(data) + Offset(row);
  }
};

}  // namespace vllm
