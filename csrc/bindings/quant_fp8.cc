// SPDX-License-Identifier: Apache-2.0
#include "quant/fp8.h"

#include <algorithm>
#include <optional>

#include "bindings/library.h"
#include "bindings/quantized.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

// Returns the size of a group along a dimension of `size` elements. -1 in group_shape means the
// whole dimension.
int64_t CheckGroupSize(const Argument& scale, const std::vector<int64_t>& group_shape,
                       size_t dimension, int64_t size) {
  const int64_t group =
      group_shape[dimension] == -1 ? std::max<int64_t>(size, 1) : group_shape[dimension];
  if (group < 1 || size % group != 0) {
    scale.Fail("has group_shape " + FormatShape(group_shape),
               "-1 or divisors of the " + std::to_string(size) +
                   (dimension == 0 ? " tokens" : " columns") + " at index " +
                   std::to_string(dimension));
  }
  return group;
}

ScaleGrid CheckScales(const Argument& scale, const Argument& input, int64_t tokens,
                      const std::optional<std::vector<int64_t>>& group_shape) {
  scale.CheckOnDevice().CheckDType(ScalarType::Float);
  const Extents shape = scale.shape();
  const int64_t columns = input.shape().back();
  ScaleGrid grid;
  grid.data = static_cast<const float*>(scale.tensor().data_ptr());
  if (group_shape.has_value() && group_shape->size() != 2) {
    scale.Fail("has group_shape " + FormatShape(*group_shape),
               "two numbers: tokens and columns of a group");
  }
  if (scale.tensor().numel() == 1) {
    grid.group_rows = std::max<int64_t>(tokens, 1);
    grid.group_columns = std::max<int64_t>(columns, 1);
    return grid;
  }
  if (shape.size() == 1 && !group_shape.has_value()) {
    scale.FailShape(
        "also a group_shape: [-1, 1] for a scale for each column, [1, -1] for each token");
  }
  if (shape.size() == 2 && !group_shape.has_value()) {
    if (shape[0] < 1 || shape[1] < 1 || tokens % shape[0] != 0 || columns % shape[1] != 0) {
      scale.FailShape("divisors of the " + std::to_string(tokens) + " tokens and " +
                      std::to_string(columns) + " columns");
    }
    grid.group_rows = std::max<int64_t>(tokens / shape[0], 1);
    grid.group_columns = std::max<int64_t>(columns / shape[1], 1);
  } else if (shape.size() == 1 || shape.size() == 2) {
    grid.group_rows = CheckGroupSize(scale, *group_shape, 0, tokens);
    grid.group_columns = CheckGroupSize(scale, *group_shape, 1, columns);
    const int64_t rows = tokens / grid.group_rows, across = columns / grid.group_columns;
    if (shape.size() == 2) {
      scale.CheckShape({rows, across}, "groups of group_shape " + FormatShape(*group_shape));
    } else if (rows <= 1) {
      scale.CheckShape({across}, "groups of group_shape " + FormatShape(*group_shape));
    } else if (across <= 1) {
      scale.CheckShape({rows}, "groups of group_shape " + FormatShape(*group_shape));
    } else {
      scale.FailShape(FormatShape({rows, across}) + ": groups of group_shape " +
                      FormatShape(*group_shape));
    }
    if (shape.size() == 1) {
      grid.row_stride = rows <= 1 ? 0 : scale.strides()[0];
      grid.column_stride = rows <= 1 ? scale.strides()[0] : 0;
      return grid;
    }
  } else {
    scale.FailShape("one element, or one or two dimensions");
  }
  grid.row_stride = scale.strides()[0];
  grid.column_stride = scale.strides()[1];
  return grid;
}

void QuantizeStatic(Tensor result_tensor, Tensor input_tensor, Tensor scale_tensor,
                    std::optional<std::vector<int64_t>> group_shape) {
  const char* op = "static_scaled_fp8_quant";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  const Argument scale(op, "scale", scale_tensor);
  const Rows out = CheckPaddedQuantized(result, input);
  const QType type = CheckFp8(result);
  const Rows rows = input.GetLastDimensionRows();
  const ScaleGrid grid = CheckScales(scale, input, rows.count, group_shape);
  QuantizeFp8Static(out, type, rows, grid);
}

void QuantizeDynamic(Tensor result_tensor, Tensor input_tensor, Tensor scale_tensor) {
  const char* op = "dynamic_scaled_fp8_quant";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  const Argument scale(op, "scale", scale_tensor);
  const Rows out = CheckPaddedQuantized(result, input);
  const QType type = CheckFp8(result);
  CheckScalar(scale);
  QuantizeFp8Dynamic(out, type, input.GetLastDimensionRows(),
                     static_cast<float*>(scale_tensor.data_ptr()));
}

void QuantizePerToken(Tensor result_tensor, Tensor input_tensor, Tensor scale_tensor,
                      std::optional<Tensor> bound_tensor) {
  const char* op = "dynamic_per_token_scaled_fp8_quant";
  const Argument result(op, "result", result_tensor);
  const Argument input(op, "input", input_tensor);
  const Argument scale(op, "scale", scale_tensor);
  const Rows out = CheckPaddedQuantized(result, input);
  const QType type = CheckFp8(result);
  const Rows rows = input.GetLastDimensionRows();
  float* scales = CheckPerToken<float>(scale, ScalarType::Float, rows.count);
  const float* bound = nullptr;
  if (bound_tensor.has_value()) bound = CheckScalar(Argument(op, "scale_ub", *bound_tensor));
  QuantizeFp8PerToken(out, type, rows, scales, bound);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "static_scaled_fp8_quant(Tensor! result, Tensor input, Tensor scale, int[]? "
      "group_shape=None) -> ()");
  m.def("dynamic_scaled_fp8_quant(Tensor! result, Tensor input, Tensor! scale) -> ()");
  m.def(
      "dynamic_per_token_scaled_fp8_quant(Tensor! result, Tensor input, Tensor! scale, Tensor? "
      "scale_ub) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("static_scaled_fp8_quant", VLLM_BOX(vllm::QuantizeStatic));
  m.impl("dynamic_scaled_fp8_quant", VLLM_BOX(vllm::QuantizeDynamic));
  m.impl("dynamic_per_token_scaled_fp8_quant", VLLM_BOX(vllm::QuantizePerToken));
}
