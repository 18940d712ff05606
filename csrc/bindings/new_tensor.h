// SPDX-License-Identifier: Apache-2.0
// Creates the results of ops.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/shim_utils.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace vllm {

// Returns an uninitialised contiguous tensor on a device. torch::stable::new_empty calls an
// operator through the dispatcher, which takes a microsecond: longer than a small op.
template <size_t kDims>
torch::stable::Tensor MakeTensorOn(int32_t device_type, int32_t device_index,
                                   const std::array<int64_t, kDims>& sizes,
                                   torch::headeronly::ScalarType dtype) {
  std::array<int64_t, kDims> strides{};
  int64_t stride = 1;
  for (size_t i = kDims; i-- > 0; stride *= sizes[i]) strides[i] = stride;
  AtenTensorHandle handle = nullptr;
  const auto number = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(kDims), sizes.data(),
                                                  strides.data(), number, device_type, device_index,
                                                  &handle));
  return torch::stable::Tensor(handle);
}

// The same on the device of `like`.
template <size_t kDims>
torch::stable::Tensor MakeTensor(const torch::stable::Tensor& like,
                                 const std::array<int64_t, kDims>& sizes,
                                 torch::headeronly::ScalarType dtype) {
  int32_t type = 0, index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &index));
  return MakeTensorOn<kDims>(type, index, sizes, dtype);
}

}  // namespace vllm
