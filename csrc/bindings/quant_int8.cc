// SPDX-License-Identifier: Apache-2.0
#include "quant/int8.h"

#include <optional>

#include "bindings/library.h"
#include "bindings/quantized.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

void QuantizeStatic(Tensor result_tensor, Tensor input_tensor, Tensor scale_tensor,
                    std::optional<Tensor> azp_tensor) {
  const char* op = "static_scaled_int8_quant";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  CheckQuantized(result, input);
  result.CheckDType(ScalarType::Char);
  const float* scale = CheckScalar(Argument(op, "scale", scale_tensor));
  const int32_t* azp = nullptr;
  if (azp_tensor.has_value()) {
    const Argument argument(op, "azp", *azp_tensor);
    argument.CheckOnDevice().CheckDType(ScalarType::Int);
    argument.CheckOneElement();
    azp = static_cast<const int32_t*>(azp_tensor->data_ptr());
  }
  QuantizeInt8Static(result.GetLastDimensionRows(), input.GetLastDimensionRows(), scale, azp);
}

void QuantizeDynamic(Tensor result_tensor, Tensor input_tensor, Tensor scale_tensor,
                     std::optional<Tensor> azp_tensor) {
  const char* op = "dynamic_scaled_int8_quant";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  CheckQuantized(result, input);
  result.CheckDType(ScalarType::Char);
  const Rows rows = input.GetLastDimensionRows();
  float* scales =
      CheckPerToken<float>(Argument(op, "scale", scale_tensor), ScalarType::Float, rows.count);
  int32_t* azps = nullptr;
  if (azp_tensor.has_value())
    azps = CheckPerToken<int32_t>(Argument(op, "azp", *azp_tensor), ScalarType::Int, rows.count);
  QuantizeInt8Dynamic(result.GetLastDimensionRows(), rows, scales, azps);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("static_scaled_int8_quant(Tensor! result, Tensor input, Tensor scale, Tensor? azp) -> ()");
  m.def(
      "dynamic_scaled_int8_quant(Tensor! result, Tensor input, Tensor! scale, Tensor!? azp) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("static_scaled_int8_quant", VLLM_BOX(vllm::QuantizeStatic));
  m.impl("dynamic_scaled_int8_quant", VLLM_BOX(vllm::QuantizeDynamic));
}
