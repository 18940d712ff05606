// SPDX-License-Identifier: Apache-2.0
#include "activation/activation.h"

#include "bindings/arguments.h"

namespace vllm {
namespace {

void CheckedActivateAndMul(const char* op, const char* out_name, Activation activation, const Tensor& out_tensor,
                           const Tensor& input_tensor) {
  const Argument out(op, out_name, out_tensor);
  const Argument input(op, "input", input_tensor);
  input.OnCpu().Floating().LastDimensionContiguous();
  std::vector<int64_t> half = input.shape();
  if (half.back() % 2 != 0) input.Fail("has shape " + ShapeText(half), "an even last dimension: the gate, then the factor");
  half.back() /= 2;
  out.OnCpu().SameDTypeAs(input).HasShape(half, "that of input with half its last dimension").LastDimensionContiguous().Writable();
  ActivateAndMul(activation, out.LastDimensionRows(), input.LastDimensionRows());
}

void CheckedActivate(const char* op, Activation activation, const Tensor& out_tensor, const Tensor& input_tensor) {
  const Argument out(op, "out", out_tensor);
  const Argument input(op, "input", input_tensor);
  input.OnCpu().Floating();
  out.OnCpu().SameDTypeAs(input).HasShape(input.shape(), "that of input").Writable();
  if (out_tensor.is_contiguous() && input_tensor.is_contiguous()) {
    Activate(activation, out.LongestRows(), input.LongestRows());
  } else {
    input.LastDimensionContiguous();
    out.LastDimensionContiguous();
    Activate(activation, out.LastDimensionRows(), input.LastDimensionRows());
  }
}

void SiluAndMul(Tensor result, Tensor input) { CheckedActivateAndMul("silu_and_mul", "result", Activation::kSilu, result, input); }
void GeluAndMul(Tensor out, Tensor input) { CheckedActivateAndMul("gelu_and_mul", "out", Activation::kGelu, out, input); }
void GeluTanhAndMul(Tensor out, Tensor input) { CheckedActivateAndMul("gelu_tanh_and_mul", "out", Activation::kGeluTanh, out, input); }
// gelu_new and gelu_fast are the same function: they differ in where sqrt(2/pi) is multiplied in.
void GeluNew(Tensor out, Tensor input) { CheckedActivate("gelu_new", Activation::kGeluTanh, out, input); }
void GeluFast(Tensor out, Tensor input) { CheckedActivate("gelu_fast", Activation::kGeluTanh, out, input); }
void GeluQuick(Tensor out, Tensor input) { CheckedActivate("gelu_quick", Activation::kGeluQuick, out, input); }

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("silu_and_mul(Tensor! result, Tensor input) -> ()");
  m.def("gelu_and_mul(Tensor! out, Tensor input) -> ()");
  m.def("gelu_tanh_and_mul(Tensor! out, Tensor input) -> ()");
  m.def("gelu_new(Tensor! out, Tensor input) -> ()");
  m.def("gelu_fast(Tensor! out, Tensor input) -> ()");
  m.def("gelu_quick(Tensor! out, Tensor input) -> ()");
}

#if defined(VLLM_ACTIVATION_CPU)
STABLE_TORCH_LIBRARY_IMPL(_C, CPU, m) {
  m.impl("silu_and_mul", TORCH_BOX(&vllm::SiluAndMul));
  m.impl("gelu_and_mul", TORCH_BOX(&vllm::GeluAndMul));
  m.impl("gelu_tanh_and_mul", TORCH_BOX(&vllm::GeluTanhAndMul));
  m.impl("gelu_new", TORCH_BOX(&vllm::GeluNew));
  m.impl("gelu_fast", TORCH_BOX(&vllm::GeluFast));
  m.impl("gelu_quick", TORCH_BOX(&vllm::GeluQuick));
}
#endif
