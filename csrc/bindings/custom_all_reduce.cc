// SPDX-License-Identifier: Apache-2.0
#include "distributed/custom_all_reduce.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <tuple>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"
#include "core/gpu/stream.h"
#include "core/handles.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

std::shared_ptr<CustomAllReduce> FindReduce(const char* op, int64_t fa) {
  std::shared_ptr<CustomAllReduce> found = GetHandles<CustomAllReduce>().Find(fa);
  if (found == nullptr)
    FailOp(op, "fa is " + std::to_string(fa) +
                   ", expected a number that init_custom_ar returned and that was not disposed of");
  return found;
}

std::vector<void*> CheckAddresses(const char* op, const char* name,
                                  const std::vector<int64_t>& numbers) {
  std::vector<void*> addresses;
  for (const int64_t number : numbers) {
    if (number == 0)
      FailOp(op, std::string(name) + " contains 0, expected an address for each rank");
    addresses.push_back(reinterpret_cast<void*>(number));
  }
  return addresses;
}

int64_t GetMetaSize() { return GetCustomAllReduceMetaSize(); }

int64_t Init(std::vector<int64_t> ipc_tensors, Tensor rank_data_tensor, int64_t rank,
             bool fully_connected) {
  const char* op = "init_custom_ar";
  const int64_t ranks = static_cast<int64_t>(ipc_tensors.size());
  if (ranks > kMaxRanks || ranks < 2 || ranks % 2 != 0) {
    FailOp(op, "ipc_tensors has " + std::to_string(ranks) +
                   " elements, expected one for each of 2, 4, 6 or 8 ranks");
  }
  if (rank < 0 || rank >= ranks)
    FailOp(op,
           "rank is " + std::to_string(rank) + ", expected 0 <= rank < " + std::to_string(ranks));
  const Argument rank_data(op, "rank_data", rank_data_tensor);
  rank_data.CheckOnDevice().CheckDType(ScalarType::Byte).CheckContiguous();
  return GetHandles<CustomAllReduce>().Add(std::make_shared<CustomAllReduce>(
      CheckAddresses(op, "ipc_tensors", ipc_tensors), rank_data_tensor.data_ptr(),
      rank_data_tensor.numel(), static_cast<int>(rank), fully_connected));
}

void Dispose(int64_t fa) {
  if (!GetHandles<CustomAllReduce>().Release(fa)) FindReduce("dispose", fa);
}

void RegisterBuffer(int64_t fa, std::vector<int64_t> ipc_tensors) {
  const char* op = "register_buffer";
  const std::shared_ptr<CustomAllReduce> reduce = FindReduce(op, fa);
  if (static_cast<int>(ipc_tensors.size()) != reduce->ranks()) {
    FailOp(op, "ipc_tensors has " + std::to_string(ipc_tensors.size()) +
                   " elements, expected one for each of " + std::to_string(reduce->ranks()) +
                   " ranks");
  }
  reduce->RegisterBuffer(CheckAddresses(op, "ipc_tensors", ipc_tensors));
}

void AllReduce(int64_t fa, Tensor inp_tensor, Tensor out_tensor, int64_t reg_buffer,
               int64_t reg_buffer_sz_bytes) {
  const char* op = "all_reduce";
  const std::shared_ptr<CustomAllReduce> reduce = FindReduce(op, fa);
  const Argument inp(op, "inp", inp_tensor), out(op, "out", out_tensor);
  inp.CheckOnDevice().CheckFloating();
  out.CheckOnDevice().CheckSameDType(inp);
  if (out_tensor.numel() != inp_tensor.numel()) {
    out.Fail("has " + std::to_string(out_tensor.numel()) + " elements",
             std::to_string(inp_tensor.numel()) + ", the number of elements of inp");
  }
  const int64_t bytes = inp_tensor.numel() * static_cast<int64_t>(inp_tensor.element_size());
  for (const Argument* argument : {&inp, &out}) {
    argument->CheckContiguous();
    if (bytes % 16 != 0 || reinterpret_cast<uintptr_t>(argument->tensor().data_ptr()) % 16 != 0) {
      argument->Fail("has " + std::to_string(bytes) + " bytes, or an unaligned address",
                     "multiples of 16, because the GPU reads 16 bytes at once");
    }
  }
  const void* from = inp_tensor.data_ptr();
  if (reg_buffer != 0) {
    if (bytes > reg_buffer_sz_bytes) {
      inp.Fail("has " + std::to_string(bytes) + " bytes",
               "at most reg_buffer_sz_bytes " + std::to_string(reg_buffer_sz_bytes));
    }
    void* buffer = reinterpret_cast<void*>(reg_buffer);
    gpu::CopyAsync(buffer, from, static_cast<size_t>(bytes));
    from = buffer;
  }
  reduce->Reduce(out_tensor.data_ptr(), from, inp.dtype(), bytes);
}

std::tuple<std::vector<int64_t>, std::vector<int64_t>> GetGraphBuffers(int64_t fa) {
  const auto [handles, offsets] = FindReduce("get_graph_buffer_ipc_meta", fa)->GetGraphBuffers();
  return {std::vector<int64_t>(handles.begin(), handles.end()), offsets};
}

void RegisterGraphBuffers(int64_t fa, std::vector<std::vector<int64_t>> handles,
                          std::vector<std::vector<int64_t>> offsets) {
  const char* op = "register_graph_buffers";
  const std::shared_ptr<CustomAllReduce> reduce = FindReduce(op, fa);
  const size_t ranks = static_cast<size_t>(reduce->ranks());
  if (handles.size() != ranks || offsets.size() != ranks) {
    FailOp(op, "handles and offsets have " + std::to_string(handles.size()) + " and " +
                   std::to_string(offsets.size()) + " elements, expected one for each of " +
                   std::to_string(ranks) + " ranks");
  }
  std::vector<std::vector<unsigned char>> bytes;
  for (const std::vector<int64_t>& handle : handles) {
    if (std::any_of(handle.begin(), handle.end(),
                    [](int64_t byte) { return byte < 0 || byte > 255; })) {
      FailOp(op,
             "handles contains a number that is not a byte, expected the handles that "
             "get_graph_buffer_ipc_meta returned");
    }
    bytes.emplace_back(handle.begin(), handle.end());
  }
  reduce->RegisterGraphBuffers(bytes, offsets);
}

std::tuple<int64_t, Tensor> AllocateSharedBuffer(int64_t size) {
  const char* op = "allocate_shared_buffer_and_handle";
  CheckAtLeast(op, "size", size, 1);
  const auto [memory, handle] = gpu::AllocateShared(static_cast<size_t>(size));
  Tensor tensor = MakeTensorOn<1>(aoti_torch_device_type_cpu(), 0,
                                  {static_cast<int64_t>(handle.size())}, ScalarType::Byte);
  std::memcpy(tensor.data_ptr(), handle.data(), handle.size());
  return {reinterpret_cast<int64_t>(memory), tensor};
}

int64_t OpenMemHandle(Tensor mem_handle_tensor) {
  const Argument mem_handle("open_mem_handle", "mem_handle", mem_handle_tensor);
  if (!mem_handle_tensor.is_cpu())
    mem_handle.Fail("is not on the CPU",
                    "a handle that allocate_shared_buffer_and_handle returned");
  mem_handle.CheckDType(ScalarType::Byte)
      .CheckShape({static_cast<int64_t>(gpu::kShareHandleBytes)}, "the bytes of a handle");
  mem_handle.CheckLastDimensionContiguous();
  gpu::ShareHandle handle;
  std::memcpy(handle.data(), mem_handle_tensor.data_ptr(), handle.size());
  return reinterpret_cast<int64_t>(gpu::OpenShared(handle));
}

void FreeSharedBuffer(int64_t ptr) {
  if (ptr != 0) gpu::FreeShared(reinterpret_cast<void*>(ptr));
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C_custom_ar, m) {
  m.def(
      "init_custom_ar(int[] ipc_tensors, Tensor rank_data, int rank, bool fully_connected) -> int");
  m.def(
      "all_reduce(int fa, Tensor inp, Tensor! out, int reg_buffer, int reg_buffer_sz_bytes) -> ()");
  m.def("dispose(int fa) -> ()");
  m.def("meta_size() -> int");
  m.def("register_buffer(int fa, int[] ipc_tensors) -> ()");
  m.def("get_graph_buffer_ipc_meta(int fa) -> (int[], int[])");
  m.def("register_graph_buffers(int fa, int[][] handles, int[][] offsets) -> ()");
  m.def("allocate_shared_buffer_and_handle(int size) -> (int, Tensor)");
  m.def("open_mem_handle(Tensor mem_handle) -> int");
  m.def("free_shared_buffer(int ptr) -> ()");
}

VLLM_LIBRARY_IMPL(_C_custom_ar, m) {
  m.impl("init_custom_ar", VLLM_BOX(vllm::Init));
  m.impl("all_reduce", VLLM_BOX(vllm::AllReduce));
}

// These ops run on the current device, because no tensor argument determines one.
STABLE_TORCH_LIBRARY_IMPL(_C_custom_ar, CompositeExplicitAutograd, m) {
  m.impl("dispose", TORCH_BOX(&vllm::Dispose));
  m.impl("meta_size", TORCH_BOX(&vllm::GetMetaSize));
  m.impl("register_buffer", TORCH_BOX(&vllm::RegisterBuffer));
  m.impl("get_graph_buffer_ipc_meta", TORCH_BOX(&vllm::GetGraphBuffers));
  m.impl("register_graph_buffers", TORCH_BOX(&vllm::RegisterGraphBuffers));
  m.impl("allocate_shared_buffer_and_handle", TORCH_BOX(&vllm::AllocateSharedBuffer));
  m.impl("open_mem_handle", TORCH_BOX(&vllm::OpenMemHandle));
  m.impl("free_shared_buffer", TORCH_BOX(&vllm::FreeSharedBuffer));
}
