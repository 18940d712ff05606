// SPDX-License-Identifier: Apache-2.0
#include "gemm/gemm.h"

#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "core/handles.h"
#include "gemm/weights.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;
using MaybeTensor = std::optional<Tensor>;

// Returns the weights with the handle in `tensor`, of the kind that `member` selects.
template <typename Member>
std::shared_ptr<const Weights> CheckHandle(const char* op, const Tensor& tensor, Member member,
                                           const char* creator) {
  const Argument handle(op, "handler_tensor", tensor);
  handle.CheckOnDevice().CheckDType(ScalarType::Long);
  if (tensor.numel() != 1) handle.FailShape("one number, as returned by " + std::string(creator));
  const int64_t number = *static_cast<const int64_t*>(tensor.data_ptr());
  std::shared_ptr<const Weights> weights = GetHandles<const Weights>().Find(number);
  if (weights == nullptr || (*weights).*member == nullptr) {
    handle.Fail("is " + std::to_string(number),
                "a number that " + std::string(creator) + " returned and that was not released");
  }
  return weights;
}

// Only oneDNN needs a primitive cache; the number is checked and ignored.
void CheckCacheSize(const char* op, int64_t size) {
  CheckAtLeast(op, "primitive_cache_size", size, 0);
}

int64_t CreateMmHandler(Tensor b_tensor, int64_t cache_size) {
  const char* op = "create_onednn_mm_handler";
  const Argument b(op, "b", b_tensor);
  b.CheckOnDevice().CheckFloating().CheckRank(2, "[K, N]");
  CheckCacheSize(op, cache_size);
  auto weights = std::make_unique<FloatWeights>();
  Panels& panels = weights->panels;
  panels.dtype = b.dtype();
  panels.depth = b.shape()[0];
  panels.columns = b.shape()[1];
  panels.words = PrefersWords(panels.dtype);
  // Aligned so that no vector of a panel crosses a cache line.
  weights->memory = hwy::AllocateAligned<unsigned char>(
      static_cast<size_t>(panels.Elements() * GetSize(panels.dtype)) + 1);
  if (weights->memory == nullptr) FailOp(op, "no memory is left for a copy of b");
  PackPanels(panels, b_tensor.data_ptr(), b.strides()[0], b.strides()[1], weights->memory.get());
  panels.data = weights->memory.get();
  auto kept = std::make_shared<Weights>();
  kept->floating = std::move(weights);
  return GetHandles<const Weights>().Add(std::move(kept));
}

// Checks the shape of an output with the rows of a matrix `a`. They may be several dimensions: the
// engine passes activations of three dimensions as a matrix, and their output as it is.
void CheckOutput(const Argument& c, const Argument& a, int64_t columns) {
  int64_t rows = 1;
  for (size_t dim = 0; dim + 1 < c.shape().size(); ++dim) rows *= c.shape()[dim];
  if (c.shape().empty() || rows != a.shape()[0] || c.shape().back() != columns) {
    c.FailShape(FormatShape({a.shape()[0], columns}) +
                ": [M, N] with the N of the weights; M may be several dimensions");
  }
}

void OnednnMm(Tensor c_tensor, Tensor a_tensor, MaybeTensor bias_tensor, Tensor handle_tensor) {
  const char* op = "onednn_mm";
  const auto weights =
      CheckHandle(op, handle_tensor, &Weights::floating, "create_onednn_mm_handler");
  const Panels& b = weights->floating->panels;
  const Argument a(op, "a", a_tensor);
  a.CheckOnDevice().CheckFloating().CheckRank(2, "[M, K]");
  a.CheckShape({a.shape()[0], b.depth}, "[M, K] with the K of the weights")
      .CheckLastDimensionContiguous();
  if (a.dtype() != b.dtype) a.Fail("has another dtype", "the dtype of the weights");
  const Argument c(op, "c", c_tensor);
  c.CheckOnDevice().CheckSameDType(a).CheckLastDimensionContiguous().CheckWritable();
  CheckOutput(c, a, b.columns);
  std::vector<float> bias;
  if (bias_tensor.has_value()) {
    const Argument argument(op, "bias", *bias_tensor);
    argument.CheckOnDevice()
        .CheckSameDType(a)
        .CheckShape({b.columns}, "the N of the weights")
        .CheckLastDimensionContiguous();
    bias = argument.ToFloats();
  }
  MatMul(c.GetLastDimensionRows(), a.GetLastDimensionRows(), b,
         bias.empty() ? nullptr : bias.data());
}

// Checks a contiguous tensor of any shape with `count` elements, or with one if `one` is set.
void CheckCount(const Argument& argument, int64_t count, bool one, const char* what) {
  const int64_t elements = argument.tensor().numel();
  if (elements != count && !(one && elements == 1)) {
    argument.FailShape(std::string(one ? "one element or " : "") + what + ", " +
                       std::to_string(count));
  }
  argument.CheckContiguous();
}

int64_t CreateScaledMmHandler(Tensor b_tensor, Tensor scales_tensor, ScalarType output,
                              bool dynamic, bool use_azp, int64_t cache_size) {
  const char* op = "create_onednn_scaled_mm_handler";
  const Argument b(op, "b", b_tensor);
  b.CheckOnDevice().CheckDType(ScalarType::Char).CheckRank(2, "[K, N]");
  CheckCacheSize(op, cache_size);
  const int64_t depth = b.shape()[0], columns = b.shape()[1];
  if (depth > Int8Panels::kMaxDepth) {
    b.FailShape("K of at most " + std::to_string(Int8Panels::kMaxDepth) +
                ", so that sums fit into int32");
  }
  const Argument scales(op, "b_scales", scales_tensor);
  scales.CheckOnDevice().CheckDType(ScalarType::Float);
  CheckCount(scales, columns, true, "one for each column of b");
  CheckDType(op, "output_type", output,
             {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half});
  auto weights = std::make_unique<Int8Weights>();
  weights->panels = PackInt8(static_cast<const int8_t*>(b_tensor.data_ptr()), b.strides()[0],
                             b.strides()[1], depth, columns);
  if (weights->panels.data == nullptr) FailOp(op, "no memory is left for a copy of b");
  const float* first = static_cast<const float*>(scales_tensor.data_ptr());
  weights->scales.assign(first, first + scales_tensor.numel());
  weights->output = ToDType(output);
  weights->scale_per_row = dynamic;
  weights->has_zero = use_azp;
  auto kept = std::make_shared<Weights>();
  kept->int8 = std::move(weights);
  return GetHandles<const Weights>().Add(std::move(kept));
}

// Returns the bias as float32, converted into `memory` if necessary.
const float* CheckBias(const char* op, const Tensor& tensor, const Argument& output,
                       int64_t columns, std::vector<float>& memory) {
  const Argument bias(op, "bias", tensor);
  bias.CheckOnDevice()
      .CheckFloating()
      .CheckShape({columns}, "the N of the weights")
      .CheckLastDimensionContiguous();
  if (bias.dtype() == DType::kFloat32) return static_cast<const float*>(tensor.data_ptr());
  memory = bias.CheckSameDType(output).ToFloats();
  return memory.data();
}

void OnednnScaledMm(Tensor c_tensor, Tensor a_tensor, Tensor a_scales_tensor,
                    MaybeTensor azp_tensor, MaybeTensor azp_adj_tensor, MaybeTensor bias_tensor,
                    Tensor handle_tensor) {
  const char* op = "onednn_scaled_mm";
  const auto kept =
      CheckHandle(op, handle_tensor, &Weights::int8, "create_onednn_scaled_mm_handler");
  const Int8Weights& weights = *kept->int8;
  const Int8Panels& b = weights.panels;
  const Argument a(op, "a", a_tensor);
  a.CheckOnDevice().CheckDType(ScalarType::Char).CheckRank(2, "[M, K]");
  const int64_t rows = a.shape()[0];
  a.CheckShape({rows, b.depth}, "[M, K] with the K of the weights").CheckLastDimensionContiguous();
  const Argument c(op, "c", c_tensor);
  c.CheckOnDevice()
      .CheckFloating()
      .CheckShape({rows, b.columns}, "[M, N] with the N of the weights")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  if (c.dtype() != weights.output)
    c.Fail("has another dtype", "the output_type with which the handler was created");

  Int8Scales scales;
  const Argument a_scales(op, "a_scales", a_scales_tensor);
  a_scales.CheckOnDevice().CheckDType(ScalarType::Float);
  CheckCount(a_scales, weights.scale_per_row ? rows : 1, true, "one for each row of a");
  scales.a = static_cast<const float*>(a_scales_tensor.data_ptr());
  scales.a_step = a_scales_tensor.numel() == 1 ? 0 : 1;
  scales.b = weights.scales.data();
  scales.b_step = weights.scales.size() == 1 ? 0 : 1;
  if (azp_tensor.has_value() != weights.has_zero) {
    FailOp(op, std::string("azp is ") + (weights.has_zero ? "missing" : "given") +
                   ", but the handler was created with use_azp " +
                   (weights.has_zero ? "True" : "False"));
  }
  if (azp_tensor.has_value()) {
    const Argument azp(op, "azp", *azp_tensor);
    azp.CheckOnDevice().CheckDType(ScalarType::Int);
    CheckCount(azp, weights.scale_per_row ? rows : 1, true, "one for each row of a");
    scales.zero = static_cast<const int32_t*>(azp_tensor->data_ptr());
    scales.zero_step = azp_tensor->numel() == 1 ? 0 : 1;
  }
  if (azp_adj_tensor.has_value()) {
    const Argument azp_adj(op, "azp_adj", *azp_adj_tensor);
    azp_adj.CheckOnDevice().CheckDType(ScalarType::Float);
    CheckCount(azp_adj, b.columns, false, "one for each column of the weights");
  }
  std::vector<float> bias_memory;
  if (bias_tensor.has_value()) scales.bias = CheckBias(op, *bias_tensor, c, b.columns, bias_memory);
  Int8MatMul(c.GetLastDimensionRows(), static_cast<const int8_t*>(a_tensor.data_ptr()),
             a.strides()[0], b, scales);
}

void ReleaseHandler(int64_t number) {
  if (!GetHandles<const Weights>().Release(number)) {
    FailOp("release_dnnl_matmul_handler",
           "handler is " + std::to_string(number) +
               ", expected a number that was returned and not yet released");
  }
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("create_onednn_mm_handler(Tensor b, int primitive_cache_size) -> int");
  m.def("onednn_mm(Tensor! c, Tensor a, Tensor? bias, Tensor handler_tensor) -> ()");
  m.def(
      "create_onednn_scaled_mm_handler(Tensor b, Tensor b_scales, ScalarType output_type, bool "
      "dynamic_act_quant, bool use_azp, int primitive_cache_size) -> int");
  m.def(
      "onednn_scaled_mm(Tensor! c, Tensor a, Tensor a_scales, Tensor? azp, Tensor? azp_adj, "
      "Tensor? bias, Tensor handler_tensor) -> ()");
  m.def("release_dnnl_matmul_handler(int handler) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("create_onednn_mm_handler", VLLM_BOX(vllm::CreateMmHandler));
  m.impl("onednn_mm", VLLM_BOX(vllm::OnednnMm));
  m.impl("create_onednn_scaled_mm_handler", VLLM_BOX(vllm::CreateScaledMmHandler));
  m.impl("onednn_scaled_mm", VLLM_BOX(vllm::OnednnScaledMm));
}
// No tensor argument selects a dispatch key.
STABLE_TORCH_LIBRARY_IMPL(_C, CompositeExplicitAutograd, m) {
  m.impl("release_dnnl_matmul_handler", VLLM_BOX(vllm::ReleaseHandler));
}
