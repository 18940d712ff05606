// SPDX-License-Identifier: Apache-2.0
#include "activation/activation.h"

#include "bindings/library.h"
#include "bindings/quantized.h"

namespace vllm {
namespace {

// Checks that the input has a gate and a factor for each element of the output.
void CheckHalved(const Argument& out, const Argument& input) {
  std::vector<int64_t> half = input.shape().vec();
  if (half.back() % 2 != 0)
    input.Fail("has shape " + FormatShape(half), "an even last dimension for gates and factors");
  half.back() /= 2;
  out.CheckOnDevice()
      .CheckShape(half, "the shape of input with half its last dimension")
      .CheckLastDimensionContiguous()
      .CheckWritable();
}

void RunActivateAndMul(const char* op, const char* out_name, const Gate& gate,
                       const Tensor& out_tensor, const Tensor& input_tensor) {
  const Argument out(op, out_name, out_tensor);
  const Argument input(op, "input", input_tensor);
  input.CheckOnDevice().CheckFloating().CheckLastDimensionContiguous();
  CheckHalved(out, input);
  out.CheckSameDType(input);
  ActivateAndMul(gate, out.GetLastDimensionRows(), input.GetLastDimensionRows());
}

void RunActivate(const char* op, Activation activation, const Tensor& out_tensor,
                 const Tensor& input_tensor) {
  const Argument out(op, "out", out_tensor);
  const Argument input(op, "input", input_tensor);
  input.CheckOnDevice().CheckFloating();
  out.CheckOnDevice()
      .CheckSameDType(input)
      .CheckShape(input.shape(), "the shape of input")
      .CheckWritable();
  if (out_tensor.is_contiguous() && input_tensor.is_contiguous()) {
    Activate(activation, out.GetLongestRows(), input.GetLongestRows());
  } else {
    input.CheckLastDimensionContiguous();
    out.CheckLastDimensionContiguous();
    Activate(activation, out.GetLastDimensionRows(), input.GetLastDimensionRows());
  }
}

void SiluAndMul(Tensor result, Tensor input) {
  RunActivateAndMul("silu_and_mul", "result", {Gate::kSilu}, result, input);
}
void GeluAndMul(Tensor out, Tensor input) {
  RunActivateAndMul("gelu_and_mul", "out", {Gate::kGelu}, out, input);
}
void GeluTanhAndMul(Tensor out, Tensor input) {
  RunActivateAndMul("gelu_tanh_and_mul", "out", {Gate::kGeluTanh}, out, input);
}
void MulAndSilu(Tensor out, Tensor input) {
  RunActivateAndMul("mul_and_silu", "out", {Gate::kSilu, Layout::kGateLast}, out, input);
}
void FatReluAndMul(Tensor out, Tensor input, double threshold) {
  RunActivateAndMul("fatrelu_and_mul", "out",
                    {Gate::kFatRelu, Layout::kGateFirst, static_cast<float>(threshold)}, out,
                    input);
}
void SiluAndMulWithClamp(Tensor result, Tensor input, double limit, double alpha, double beta) {
  const Gate gate{Gate::kClampedSilu, Layout::kGateFirst, static_cast<float>(limit),
                  static_cast<float>(alpha), static_cast<float>(beta)};
  RunActivateAndMul("silu_and_mul_with_clamp", "result", gate, result, input);
}
void SwigluOaiAndMul(Tensor out, Tensor input, double alpha, double limit) {
  const Gate gate{Gate::kClampedSilu, Layout::kInterleaved, static_cast<float>(limit),
                  static_cast<float>(alpha), 1.0f};
  RunActivateAndMul("swigluoai_and_mul", "out", gate, out, input);
}
void SiluAndMulQuantOp(Tensor result_tensor, Tensor input_tensor, Tensor scale_tensor) {
  const char* op = "silu_and_mul_quant";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  input.CheckOnDevice().CheckFloating().CheckLastDimensionContiguous();
  CheckHalved(result, input);
  const QType type = CheckFp8(result);
  const float* scale = CheckScalar(Argument(op, "scale", scale_tensor));
  ActivateAndQuantize(result.GetLastDimensionRows(), type, input.GetLastDimensionRows(), scale);
}
// gelu_new and gelu_fast are the same function: upstream's differ only in where they multiply by
// sqrt(2/pi).
void GeluNew(Tensor out, Tensor input) {
  RunActivate("gelu_new", Activation::kGeluTanh, out, input);
}
void GeluTanhOp(Tensor out, Tensor input) {
  RunActivate("gelu_tanh", Activation::kGeluTanh, out, input);
}
void ReluSquared(Tensor out, Tensor input) {
  RunActivate("relu_squared", Activation::kReluSquared, out, input);
}
void GeluFast(Tensor out, Tensor input) {
  RunActivate("gelu_fast", Activation::kGeluTanh, out, input);
}
void GeluQuick(Tensor out, Tensor input) {
  RunActivate("gelu_quick", Activation::kGeluQuick, out, input);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("silu_and_mul(Tensor! result, Tensor input) -> ()");
  m.def("gelu_and_mul(Tensor! out, Tensor input) -> ()");
  m.def("gelu_tanh_and_mul(Tensor! out, Tensor input) -> ()");
  m.def("mul_and_silu(Tensor! out, Tensor input) -> ()");
  m.def("fatrelu_and_mul(Tensor! out, Tensor input, float threshold) -> ()");
  m.def(
      "silu_and_mul_with_clamp(Tensor! result, Tensor input, float limit, float alpha=1., float "
      "beta=0.) -> ()");
  m.def("swigluoai_and_mul(Tensor! out, Tensor input, float alpha=1.702, float limit=7.) -> ()");
  m.def("silu_and_mul_quant(Tensor! result, Tensor input, Tensor scale) -> ()");
  m.def("gelu_tanh(Tensor! out, Tensor input) -> ()");
  m.def("relu_squared(Tensor! out, Tensor input) -> ()");
  m.def("gelu_new(Tensor! out, Tensor input) -> ()");
  m.def("gelu_fast(Tensor! out, Tensor input) -> ()");
  m.def("gelu_quick(Tensor! out, Tensor input) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("silu_and_mul", VLLM_BOX(vllm::SiluAndMul));
  m.impl("gelu_and_mul", VLLM_BOX(vllm::GeluAndMul));
  m.impl("gelu_tanh_and_mul", VLLM_BOX(vllm::GeluTanhAndMul));
  m.impl("mul_and_silu", VLLM_BOX(vllm::MulAndSilu));
  m.impl("fatrelu_and_mul", VLLM_BOX(vllm::FatReluAndMul));
  m.impl("silu_and_mul_with_clamp", VLLM_BOX(vllm::SiluAndMulWithClamp));
  m.impl("swigluoai_and_mul", VLLM_BOX(vllm::SwigluOaiAndMul));
  m.impl("silu_and_mul_quant", VLLM_BOX(vllm::SiluAndMulQuantOp));
  m.impl("gelu_tanh", VLLM_BOX(vllm::GeluTanhOp));
  m.impl("relu_squared", VLLM_BOX(vllm::ReluSquared));
  m.impl("gelu_new", VLLM_BOX(vllm::GeluNew));
  m.impl("gelu_fast", VLLM_BOX(vllm::GeluFast));
  m.impl("gelu_quick", VLLM_BOX(vllm::GeluQuick));
}
