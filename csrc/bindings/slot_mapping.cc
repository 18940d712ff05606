// SPDX-License-Identifier: Apache-2.0
#include "cache/slot_mapping.h"

#include <limits>

#include "bindings/arguments.h"
#include "bindings/library.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

// Checks that `starts` are indices into `tokens` tokens, in order.
void CheckStarts(const Argument& starts, int64_t tokens) {
  const int32_t* values = starts.Data<const int32_t>();
  int64_t before = 0;
  for (int64_t i = 0; i < starts.shape()[0]; ++i) {
    if (values[i] < before || values[i] > tokens) {
      starts.Fail("has " + std::to_string(values[i]) + " at " + std::to_string(i),
                  "numbers from " + std::to_string(before) + " to the number of tokens, " +
                      std::to_string(tokens) + ", none less than the one before");
    }
    before = values[i];
  }
}

void ComputeSlotMapping(Tensor starts_tensor, Tensor positions_tensor, Tensor table_tensor,
                        Tensor slots_tensor, int64_t block_size) {
  const char* op = "compute_slot_mapping_kernel_impl";
  const Argument starts(op, "query_start_loc", starts_tensor);
  starts.CheckOnDevice()
      .CheckDType(ScalarType::Int)
      .CheckMinLength(1, "the first token of each request, and the end of the last one")
      .CheckContiguous();
  const Argument positions(op, "positions", positions_tensor);
  positions.CheckOnDevice().CheckDType(ScalarType::Long).CheckRank(1, "[tokens]").CheckContiguous();
  const Argument table(op, "block_table", table_tensor);
  table.CheckOnDevice()
      .CheckDType(ScalarType::Int)
      .CheckRank(2, "[requests, blocks of a request]")
      .CheckLastDimensionContiguous();
  RequestBlocks batch;
  batch.requests = starts.shape()[0] - 1;
  if (table.shape()[0] < batch.requests) {
    table.FailShape("a row for each of the " + std::to_string(batch.requests) +
                    " requests of query_start_loc");
  }
  CheckStarts(starts, positions.shape()[0]);
  const Argument slots(op, "slot_mapping", slots_tensor);
  slots.CheckOnDevice()
      .CheckDType(ScalarType::Long)
      .CheckMinLength(starts.Data<const int32_t>()[batch.requests], "one for each token")
      .CheckContiguous()
      .CheckWritable();
  CheckAtLeast(op, "block_size", block_size, 1);
  if (block_size > std::numeric_limits<int32_t>::max()) {
    FailOp(op, "block_size is " + std::to_string(block_size) + ", expected less than 2^31");
  }
  batch.starts = starts.Data<const int32_t>();
  batch.positions = positions.Data<const int64_t>();
  batch.blocks = table.Data<const int32_t>();
  batch.row_stride = table.strides()[0];
  batch.columns = table.shape()[1];
  batch.block_size = block_size;
  ComputeSlots(batch, slots.Data<int64_t>());
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "compute_slot_mapping_kernel_impl(Tensor query_start_loc, Tensor positions, Tensor "
      "block_table, Tensor(a3!) slot_mapping, SymInt block_size) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("compute_slot_mapping_kernel_impl", VLLM_BOX(vllm::ComputeSlotMapping));
}
