// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstring>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"
#include "gemm/gemm.h"
#include "gemm/panels.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

// The beginning of a packed tensor, so that products find out what it is. The panels follow. Their
// layout is private to these two ops, and may be another one on another CPU.
struct Header {
  static constexpr int64_t kMagic = 0x7468676965577076;
  // The panels begin with a cache line.
  static constexpr int64_t kBytes = 64;

  int64_t magic = kMagic;
  int64_t columns = 0;
  int64_t depth = 0;
  int64_t words = 0;  // whether Panels::words is true
};
static_assert(sizeof(Header) <= Header::kBytes);

// Returns what the header describes, without data.
Panels Describe(const Header& header, DType dtype) {
  Panels panels;
  panels.dtype = dtype;
  panels.depth = header.depth;
  panels.columns = header.columns;
  panels.words = header.words != 0;
  return panels;
}

// The size is the same on every CPU, so that a compiler of graphs knows it.
int64_t CountElements(const Panels& panels) {
  return Header::kBytes / GetSize(panels.dtype) + panels.PaddedElements();
}

Tensor ConvertWeightPacked(Tensor weight_tensor) {
  const Argument weight("convert_weight_packed", "weight", weight_tensor);
  weight.CheckOnDevice().CheckFloating().CheckRank(2, "[N, K]");
  Header header;
  header.columns = weight.shape()[0];
  header.depth = weight.shape()[1];
  header.words = PrefersWords(weight.dtype()) ? 1 : 0;
  const Panels panels = Describe(header, weight.dtype());
  const int64_t elements = CountElements(panels);
  Tensor result = MakeTensor<1>(weight_tensor, {elements}, weight.scalar_type());
  auto* to = static_cast<unsigned char*>(result.data_ptr());
  std::memset(to, 0, Header::kBytes);
  std::memcpy(to, &header, sizeof(header));
  to += Header::kBytes;
  PackPanels(panels, weight_tensor.data_ptr(), weight.strides()[1], weight.strides()[0], to);
  const int64_t used = panels.Elements() * GetSize(panels.dtype);
  std::memset(to + used, 0,
              static_cast<size_t>(elements * GetSize(panels.dtype) - Header::kBytes - used));
  return result;
}

// Checks that a tensor is a packed weight of this size.
Panels CheckPacked(const Argument& weight, int64_t columns, int64_t depth) {
  weight.CheckRank(1, "that of a result of convert_weight_packed").CheckContiguous();
  Header header;
  const int64_t bytes = weight.shape()[0] * GetSize(weight.dtype());
  if (bytes >= Header::kBytes) std::memcpy(&header, weight.tensor().data_ptr(), sizeof(header));
  if (bytes < Header::kBytes || header.magic != Header::kMagic || header.columns < 0 ||
      header.depth < 0) {
    weight.Fail("is not packed", "a result of convert_weight_packed");
  }
  if (header.columns != columns || header.depth != depth) {
    weight.Fail("is packed from shape " + FormatShape({header.columns, header.depth}),
                FormatShape({columns, depth}) + ": [N, K] with the N of out and the K of mat1");
  }
  Panels panels = Describe(header, weight.dtype());
  if (weight.shape()[0] != CountElements(panels))
    weight.FailShape(FormatShape({CountElements(panels)}) + ": that of its content");
  if (panels.words && !PrefersWords(panels.dtype))
    weight.Fail("is packed for another CPU", "a result of convert_weight_packed on this one");
  const auto* data = static_cast<const unsigned char*>(weight.tensor().data_ptr());
  if (reinterpret_cast<uintptr_t>(data) % Header::kBytes != 0)
    weight.Fail("is at an address that is not a multiple of 64", "a result of its own storage");
  panels.data = data + Header::kBytes;
  return panels;
}

void WeightPackedLinear(Tensor out_tensor, Tensor a_tensor, Tensor weight_tensor,
                        std::optional<Tensor> bias_tensor, bool is_packed) {
  const char* op = "weight_packed_linear";
  if (!is_packed)
    FailOp(op, "is_vnni is False, expected True: mat2 is a result of convert_weight_packed");
  const Argument a(op, "mat1", a_tensor);
  a.CheckOnDevice().CheckFloating().CheckRank(2, "[M, K]").CheckLastDimensionContiguous();
  const Argument weight(op, "mat2", weight_tensor);
  weight.CheckOnDevice().CheckSameDType(a);
  const Argument out(op, "out", out_tensor);
  out.CheckOnDevice()
      .CheckSameDType(a)
      .CheckRank(2, "[M, N]")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  const int64_t rows = a.shape()[0], columns = out.shape()[1];
  out.CheckShape({rows, columns}, "[M, N] with the M of mat1");
  const Panels panels = CheckPacked(weight, columns, a.shape()[1]);
  const float* bias = nullptr;
  if (bias_tensor.has_value()) {
    const Argument argument(op, "bias", *bias_tensor);
    argument.CheckOnDevice()
        .CheckDType(ScalarType::Float)
        .CheckShape({columns}, "the N of out")
        .CheckLastDimensionContiguous();
    bias = argument.Data<const float>();
  }
  MatMul(out.GetLastDimensionRows(), a.GetLastDimensionRows(), panels, bias);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("convert_weight_packed(Tensor weight) -> Tensor");
  m.def(
      "weight_packed_linear(Tensor(a0!) out, Tensor mat1, Tensor mat2, Tensor? bias, bool is_vnni) "
      "-> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("convert_weight_packed", VLLM_BOX(vllm::ConvertWeightPacked));
  m.impl("weight_packed_linear", VLLM_BOX(vllm::WeightPackedLinear));
}
