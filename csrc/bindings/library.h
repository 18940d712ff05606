// SPDX-License-Identifier: Apache-2.0
// Registration of implementations for the device that the library is compiled for.
#pragma once

#include <torch/csrc/stable/library.h>

#include "core/device.h"

// On ROCm, torch also calls its device CUDA.
#if VLLM_ON_GPU && !defined(VLLM_GPU_EMULATION)
#define VLLM_DISPATCH_KEY CUDA
#else
#define VLLM_DISPATCH_KEY CPU
#endif

// torch's macro pastes the key into a name, so the key must be expanded first.
#define VLLM_LIBRARY_IMPL_(ns, key, m) STABLE_TORCH_LIBRARY_IMPL(ns, key, m)
#define VLLM_LIBRARY_IMPL(ns, m) VLLM_LIBRARY_IMPL_(ns, VLLM_DISPATCH_KEY, m)

#if VLLM_ON_GPU && !defined(VLLM_GPU_EMULATION)

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace vllm {

// Finds the device of the tensors among an op's arguments: -1 if none is on a GPU. Tensors in CPU
// memory are left to the op's own checks.
class ArgumentsDevice {
 public:
  template <typename... Args>
  explicit ArgumentsDevice(const Args&... args) {
    (Visit(args), ...);
  }
  int32_t index() const { return index_; }

 private:
  void Visit(const torch::stable::Tensor& tensor) {
    if (!tensor.is_cuda()) return;
    const int32_t index = tensor.get_device_index();
    if (index_ >= 0 && index != index_) {
      throw std::runtime_error("tensors are on devices " + std::to_string(index_) + " and " +
                               std::to_string(index) + ", expected all on one device");
    }
    index_ = index;
  }
  void Visit(const std::optional<torch::stable::Tensor>& tensor) {
    if (tensor.has_value()) Visit(*tensor);
  }
  void Visit(const std::vector<torch::stable::Tensor>& tensors) {
    for (const torch::stable::Tensor& tensor : tensors) Visit(tensor);
  }
  template <typename T>
  void Visit(const T&) {}

  int32_t index_ = -1;
};

// Calls an op with the device of its tensors as the current device, so that kernels are launched
// there, on its current stream.
template <auto kOp>
struct OnDeviceOfArguments;

template <typename R, typename... Args, R (*kOp)(Args...)>
struct OnDeviceOfArguments<kOp> {
  static R Call(Args... args) {
    const ArgumentsDevice device(args...);
    std::optional<torch::stable::accelerator::DeviceGuard> guard;
    if (device.index() >= 0) guard.emplace(device.index());
    return kOp(std::move(args)...);
  }
};

}  // namespace vllm

#define VLLM_BOX(op) TORCH_BOX(&vllm::OnDeviceOfArguments<&op>::Call)

#else

#define VLLM_BOX(op) TORCH_BOX(&op)

#endif
