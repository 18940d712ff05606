// SPDX-License-Identifier: Apache-2.0
#include "gemm/packed_weight.h"

#include <cstring>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"
#include "bindings/new_tensor.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

// The beginning of a packed tensor, so that products find out what it is.
struct Header {
  static constexpr int64_t kMagic = 0x7468676965577076;
  // The panels begin with a cache line.
  static constexpr int64_t kBytes = 64;

  int64_t magic = kMagic;
  int64_t columns = 0;
  int64_t depth = 0;
};

// Returns what the header describes, without data.
PackedWeight Describe(const Header& header, DType dtype) {
  PackedWeight packed;
  packed.dtype = dtype;
  packed.panels = PackedWeight::Panels(header.columns);
  packed.steps = PackedWeight::Steps(dtype, header.depth);
  return packed;
}

int64_t CountElements(const PackedWeight& packed) {
  return Header::kBytes / GetSize(packed.dtype) + packed.panels * packed.PanelElements();
}

Tensor ConvertWeightPacked(Tensor weight_tensor) {
  const Argument weight("convert_weight_packed", "weight", weight_tensor);
  weight.CheckOnDevice().CheckFloating().CheckRank(2, "[N, K]");
  Header header;
  header.columns = weight.shape()[0];
  header.depth = weight.shape()[1];
  const PackedWeight packed = Describe(header, weight.dtype());
  Tensor result = MakeTensor<1>(weight_tensor, {CountElements(packed)}, weight.scalar_type());
  auto* to = static_cast<unsigned char*>(result.data_ptr());
  std::memset(to, 0, Header::kBytes);
  std::memcpy(to, &header, sizeof(header));
  PackWeight(packed, weight_tensor.data_ptr(), weight.strides()[0], weight.strides()[1],
             header.columns, header.depth, to + Header::kBytes);
  return result;
}

// Checks that a tensor is a packed weight of this size.
PackedWeight CheckPacked(const Argument& weight, int64_t columns, int64_t depth) {
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
  PackedWeight packed = Describe(header, weight.dtype());
  if (weight.shape()[0] != CountElements(packed))
    weight.FailShape(FormatShape({CountElements(packed)}) + ": that of its content");
  packed.data = static_cast<const unsigned char*>(weight.tensor().data_ptr()) + Header::kBytes;
  return packed;
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
  const PackedWeight packed = CheckPacked(weight, columns, a.shape()[1]);
  const float* bias = nullptr;
  if (bias_tensor.has_value()) {
    const Argument argument(op, "bias", *bias_tensor);
    argument.CheckOnDevice()
        .CheckDType(ScalarType::Float)
        .CheckShape({columns}, "the N of out")
        .CheckLastDimensionContiguous();
    bias = argument.Data<const float>();
  }
  MultiplyPacked(out.GetLastDimensionRows(), a.GetLastDimensionRows(), packed, bias);
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
