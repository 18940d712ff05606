// SPDX-License-Identifier: Apache-2.0
// Ops that read a paged cache, copy its blocks or convert it.
#include <algorithm>
#include <optional>
#include <stdexcept>

#include "bindings/cache_arguments.h"
#include "bindings/library.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;

// Checks a vector of int32.
const int32_t* CheckInt32s(const Argument& argument, int64_t size, const std::string& why) {
  argument.CheckOnDevice().CheckDType(ScalarType::Int).CheckShape({size}, why);
  return static_cast<const int32_t*>(argument.tensor().data_ptr());
}

// Checks the contents of the tensors of `sequences`: bounds do not decrease, do not exceed `most`
// if it is given, and all positions have blocks in the cache.
void CheckSequences(const char* op, const Sequences& sequences, const CacheRows& from,
                    const Argument& cu_seq_lens, const Argument& block_table,
                    std::optional<int64_t> most) {
  for (int64_t s = 0; s < sequences.batch; ++s) {
    const int64_t bounds[2] = {sequences.GetBound(s), sequences.GetBound(s + 1)};
    if (bounds[0] < 0 || bounds[1] < bounds[0] || (most.has_value() && bounds[1] > *most)) {
      cu_seq_lens.Fail(
          "holds " + std::to_string(bounds[0]) + " and " + std::to_string(bounds[1]) +
              " for sequence " + std::to_string(s),
          "numbers " +
              (most.has_value() ? "from 0 to " + std::to_string(*most) + " (the tokens of dst)"
                                : "from 0 on") +
              " that do not decrease");
    }
    const int64_t begin = std::min(bounds[0], sequences.tokens),
                  end = std::min(bounds[1], sequences.tokens);
    const int64_t start = sequences.GetStart(s);
    if (start < 0) {
      FailOp(op, "seq_starts holds " + std::to_string(start) + " for sequence " +
                     std::to_string(s) + ", expected at least 0");
    }
    if (begin == end) continue;
    const int64_t last = (start + end - begin - 1) / from.block_size;
    if (last >= sequences.columns) {
      block_table.FailShape("a block for position " + std::to_string(start + end - begin - 1) +
                            " of sequence " + std::to_string(s) + ", at least " +
                            std::to_string(last + 1) + " columns");
    }
    for (int64_t column = start / from.block_size; column <= last; ++column) {
      const int64_t block = sequences.GetBlock(s, column);
      if (block < 0 || block >= from.blocks) {
        block_table.Fail(
            "holds " + std::to_string(block) + " at [" + std::to_string(s) + ", " +
                std::to_string(column) + "]",
            "0 <= block < " + std::to_string(from.blocks) + ", the blocks of src_cache");
      }
    }
  }
}

// Gathers for both ops. At most `num_tokens` rows of the output are written; without a number, the
// sequences must fit into the output.
void Gather(const char* op, const Tensor& src_cache_tensor, const Tensor& dst_tensor,
            const Tensor& block_table_tensor, const Tensor& cu_seq_lens_tensor, int64_t batch,
            std::optional<int64_t> num_tokens, CacheFormat format, const float* scale,
            const std::optional<Tensor>& seq_starts_tensor) {
  const Argument src_cache(op, "src_cache", src_cache_tensor), dst(op, "dst", dst_tensor);
  const Argument block_table(op, "block_table", block_table_tensor),
      cu_seq_lens(op, "cu_seq_lens", cu_seq_lens_tensor);
  const Extents shape = src_cache.shape();
  if (shape.size() < 3 || shape[1] == 0) {
    src_cache.FailShape("[num_blocks, block_size, entries...] with a block_size of at least 1");
  }
  const Rows rows = src_cache.GetLeadingRows(0, 1);
  CacheRows from;
  from.data = rows.data;
  from.format = format;
  from.element_size = src_cache_tensor.element_size();
  from.width = 1;
  from.blocks = shape[0];
  from.block_size = shape[1];
  from.block_stride = src_cache.strides()[0];
  from.row_stride = src_cache.strides()[1];
  std::vector<int64_t> expected = {dst.shape().empty() ? 0 : dst.shape()[0]};
  for (size_t i = shape.size(); i-- > 2;) {
    if (shape[i] > 1 && src_cache.strides()[i] != from.width) {
      src_cache.FailStrides("adjacent entries of each token");
    }
    from.width *= shape[i];
  }
  expected.insert(expected.end(), shape.begin() + 2, shape.end());
  dst.CheckOnDevice()
      .CheckShape(expected, "the tokens, then the entries of src_cache")
      .CheckWritable();
  int64_t width = 1;
  for (size_t i = expected.size(); i-- > 1;) {
    if (expected[i] > 1 && dst.strides()[i] != width) {
      dst.FailStrides("adjacent entries of each token");
    }
    width *= expected[i];
  }

  block_table.CheckOnDevice().CheckDType(ScalarType::Int);
  if (block_table.shape().size() != 2 || block_table.shape()[0] < batch) {
    block_table.FailShape("[" + std::to_string(batch) + ", blocks of a sequence]");
  }
  Sequences sequences;
  sequences.table = static_cast<const int32_t*>(block_table_tensor.data_ptr());
  sequences.table_stride = block_table.strides()[0];
  sequences.column_stride = block_table.strides()[1];
  sequences.columns = block_table.shape()[1];
  sequences.bounds = CheckInt32s(cu_seq_lens, batch + 1, "one more than the number of sequences");
  sequences.bound_stride = cu_seq_lens.strides()[0];
  if (seq_starts_tensor.has_value()) {
    const Argument seq_starts(op, "seq_starts", *seq_starts_tensor);
    sequences.starts = CheckInt32s(seq_starts, batch, "the number of sequences");
    sequences.start_stride = seq_starts.strides()[0];
  }
  sequences.batch = batch;
  sequences.tokens = num_tokens.value_or(expected[0]);
  if constexpr (!kOnGpu) {
    CheckSequences(op, sequences, from, cu_seq_lens, block_table,
                   num_tokens.has_value() ? std::nullopt : std::optional(expected[0]));
  }
  GatherFromCache(from, sequences, scale, dst_tensor.data_ptr(), dst.dtype(), dst.strides()[0]);
}

void CpGatherCacheOp(Tensor src_cache_tensor, Tensor dst_tensor, Tensor block_table,
                     Tensor cu_seq_lens, int64_t batch_size, std::optional<Tensor> seq_starts) {
  const char* op = "cp_gather_cache";
  const Argument src_cache(op, "src_cache", src_cache_tensor);
  Argument(op, "dst", dst_tensor).CheckSameDType(src_cache.CheckOnDevice());
  CheckAtLeast(op, "batch_size", batch_size, 0);
  Gather(op, src_cache_tensor, dst_tensor, block_table, cu_seq_lens, batch_size, std::nullopt,
         CacheFormat::kSame, nullptr, seq_starts);
}

void GatherAndMaybeDequantCacheOp(Tensor src_cache_tensor, Tensor dst_tensor, Tensor block_table,
                                  Tensor cu_seq_lens, Tensor token_to_seq_tensor,
                                  int64_t num_tokens, StringArgument kv_cache_dtype,
                                  Tensor scale_tensor, std::optional<Tensor> seq_starts) {
  const char* op = "gather_and_maybe_dequant_cache";
  const Argument src_cache(op, "src_cache", src_cache_tensor), dst(op, "dst", dst_tensor);
  const CacheFormat format = CheckFormat(op, kv_cache_dtype.value, src_cache, dst);
  int64_t stride = 0;
  const float* scale = CheckScales(Argument(op, "scale", scale_tensor), 1, &stride);
  const int64_t rows = dst.shape().empty() ? 0 : dst.shape()[0];
  if (num_tokens < 0 || num_tokens > rows) {
    FailOp(op, "num_tokens is " + std::to_string(num_tokens) +
                   ", expected 0 <= num_tokens <= " + std::to_string(rows) + ", the tokens of dst");
  }
  const Argument token_to_seq(op, "token_to_seq", token_to_seq_tensor);
  token_to_seq.CheckOnDevice()
      .CheckDType(ScalarType::Int)
      .CheckMinLength(num_tokens, "one for each token");
  const Argument bounds(op, "cu_seq_lens", cu_seq_lens);
  if (bounds.shape().size() != 1 || bounds.shape()[0] == 0) bounds.FailShape("[sequences + 1]");
  Gather(op, src_cache_tensor, dst_tensor, block_table, cu_seq_lens, bounds.shape()[0] - 1,
         num_tokens, format, scale, seq_starts);
}

void ConvertFp8Op(Tensor dst_tensor, Tensor src_tensor, double scale,
                  StringArgument kv_cache_dtype) {
  const char* op = "convert_fp8";
  const Argument dst(op, "dst_cache", dst_tensor), src(op, "src_cache", src_tensor);
  src.CheckOnDevice();
  dst.CheckOnDevice().CheckShape(src.shape(), "the shape of src_cache").CheckWritable();
  const auto eight = [](const Argument& argument) { return argument.tensor().element_size() == 1; };
  const bool quantize = !eight(src);
  const Argument &codes = quantize ? dst : src, &values = quantize ? src : dst;
  values.CheckFloating();
  CacheFormat format = ParseFormat(op, kv_cache_dtype.value);
  if (kv_cache_dtype.value != "auto" && format == CacheFormat::kSame) {
    FailOp(op, "kv_cache_dtype is '" + kv_cache_dtype.value +
                   "', expected auto, fp8, fp8_e4m3 or fp8_e5m2");
  }
  const ScalarType type = codes.tensor().scalar_type();
  if (format == CacheFormat::kSame)
    format = type == ScalarType::Float8_e5m2 ? CacheFormat::kE5m2 : CacheFormat::kE4m3;
  CheckCodes(codes, format);
  if (dst_tensor.is_contiguous() && src_tensor.is_contiguous()) {
    return ConvertFp8(dst.GetLongestRows(), src.GetLongestRows(), format, quantize,
                      static_cast<float>(scale));
  }
  src.CheckLastDimensionContiguous();
  dst.CheckLastDimensionContiguous();
  ConvertFp8(dst.GetLastDimensionRows(), src.GetLastDimensionRows(), format, quantize,
             static_cast<float>(scale));
}

void SwapBlocksOp(Tensor src_tensor, Tensor dst_tensor, int64_t block_size_in_bytes,
                  Tensor block_mapping_tensor) {
  const char* op = "swap_blocks";
  const Argument src(op, "src", src_tensor), dst(op, "dst", dst_tensor),
      mapping(op, "block_mapping", block_mapping_tensor);
  for (const Argument* cache : {&src, &dst}) {
    cache->CheckOnDeviceOrHost().CheckContiguous();
  }
  CheckAtLeast(op, "block_size_in_bytes", block_size_in_bytes, 1);
  mapping.CheckOnHost().CheckDType(ScalarType::Long);
  if (mapping.shape().size() != 2 || mapping.shape()[1] != 2) {
    mapping.FailShape("[pairs, 2]: blocks of src and dst");
  }
  const auto blocks = [&](const Tensor& tensor) {
    return tensor.numel() * static_cast<int64_t>(tensor.element_size()) / block_size_in_bytes;
  };
  const int64_t limits[2] = {blocks(src_tensor), blocks(dst_tensor)};
  const int64_t* data = static_cast<const int64_t*>(block_mapping_tensor.data_ptr());
  const int64_t count = mapping.shape()[0];
  std::vector<int64_t> pairs(static_cast<size_t>(2 * count));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t side = 0; side < 2; ++side) {
      const int64_t block = data[i * mapping.strides()[0] + side * mapping.strides()[1]];
      if (block < 0 || block >= limits[side]) {
        mapping.Fail("holds " + std::to_string(block) + " at [" + std::to_string(i) + ", " +
                         std::to_string(side) + "]",
                     "0 <= block < " + std::to_string(limits[side]) + ", the blocks of " +
                         (side == 0 ? "src" : "dst"));
      }
      pairs[2 * i + side] = block;
    }
  }
  CopyBlocks(static_cast<char*>(dst_tensor.data_ptr()),
             static_cast<const char*>(src_tensor.data_ptr()), block_size_in_bytes, pairs.data(),
             count);
}

// Checks a contiguous vector of int64.
const int64_t* CheckInt64s(const Argument& argument, int64_t size, const std::string& why) {
  argument.CheckOnHost()
      .CheckDType(ScalarType::Long)
      .CheckShape({size}, why)
      .CheckLastDimensionContiguous();
  return static_cast<const int64_t*>(argument.tensor().data_ptr());
}

void SwapBlocksBatchOp(Tensor src_ptrs_tensor, Tensor dst_ptrs_tensor, Tensor sizes_tensor,
                       bool /*is_src_access_order_any*/) {
  const char* op = "swap_blocks_batch";
  const Argument src_ptrs(op, "src_ptrs", src_ptrs_tensor),
      dst_ptrs(op, "dst_ptrs", dst_ptrs_tensor), sizes(op, "sizes", sizes_tensor);
  src_ptrs.CheckRank(1, "one dimension");
  const int64_t count = src_ptrs.shape()[0];
  const int64_t* from = CheckInt64s(src_ptrs, count, "");
  const int64_t* to = CheckInt64s(dst_ptrs, count, "the shape of src_ptrs");
  const int64_t* bytes = CheckInt64s(sizes, count, "the shape of src_ptrs");
  for (int64_t i = 0; i < count; ++i) {
    if (bytes[i] < 0)
      sizes.Fail("holds " + std::to_string(bytes[i]) + " at " + std::to_string(i), "at least 0");
    if (bytes[i] == 0) continue;
    if (from[i] == 0) src_ptrs.Fail("holds 0 at " + std::to_string(i), "an address");
    if (to[i] == 0) dst_ptrs.Fail("holds 0 at " + std::to_string(i), "an address");
  }
  CopyRanges(to, from, bytes, count);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C_cache_ops, m) {
  m.def(
      "swap_blocks(Tensor src, Tensor! dst, int block_size_in_bytes, Tensor block_mapping) -> ()");
  m.def(
      "swap_blocks_batch(Tensor src_ptrs, Tensor dst_ptrs, Tensor sizes, bool "
      "is_src_access_order_any=False) -> ()");
  m.def(
      "gather_and_maybe_dequant_cache(Tensor src_cache, Tensor! dst, Tensor block_table, Tensor "
      "cu_seq_lens, Tensor token_to_seq, int num_tokens, str kv_cache_dtype, Tensor scale, Tensor? "
      "seq_starts) -> ()");
  m.def(
      "cp_gather_cache(Tensor src_cache, Tensor! dst, Tensor block_table, Tensor cu_seq_lens, int "
      "batch_size, Tensor? seq_starts) -> ()");
  m.def("convert_fp8(Tensor! dst_cache, Tensor src_cache, float scale, str kv_cache_dtype) -> ()");
}

VLLM_LIBRARY_IMPL(_C_cache_ops, m) {
  m.impl("swap_blocks", VLLM_BOX(vllm::SwapBlocksOp));
  m.impl("swap_blocks_batch", VLLM_BOX(vllm::SwapBlocksBatchOp));
  m.impl("gather_and_maybe_dequant_cache", VLLM_BOX(vllm::GatherAndMaybeDequantCacheOp));
  m.impl("cp_gather_cache", VLLM_BOX(vllm::CpGatherCacheOp));
  m.impl("convert_fp8", VLLM_BOX(vllm::ConvertFp8Op));
}

#if VLLM_ON_GPU && !defined(VLLM_GPU_EMULATION)
// Its tensors are on the CPU: they hold addresses.
STABLE_TORCH_LIBRARY_IMPL(_C_cache_ops, CPU, m) {
  m.impl("swap_blocks_batch", VLLM_BOX(vllm::SwapBlocksBatchOp));
}
#endif
