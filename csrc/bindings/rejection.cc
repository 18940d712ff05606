// SPDX-License-Identifier: Apache-2.0
#include "sampling/rejection.h"

#include <limits>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/library.h"

namespace vllm {
namespace {

using torch::headeronly::ScalarType;
using MaybeTensor = std::optional<Tensor>;

// Checks for a vector of int64 or int32 with `length` elements. A second dimension of one element
// is allowed.
Integers CheckIntegers(const Argument& argument, int64_t length, const char* why) {
  argument.CheckOnDevice().CheckDTypeIn({ScalarType::Long, ScalarType::Int});
  const Extents shape = argument.shape();
  const bool column = shape.size() == 2 && shape[1] == 1;
  if ((shape.size() != 1 && !column) || shape[0] != length)
    argument.FailShape(FormatShape({length}) + ": " + why);
  return {argument.tensor().data_ptr(), argument.scalar_type() == ScalarType::Long,
          argument.strides()[0]};
}

// Checks the ends of the drafts of each request, which are those of `tokens`.
Drafts CheckDrafts(const char* op, const Argument& ends, const Tensor& tokens_tensor) {
  const Argument tokens(op, "draft_token_ids", tokens_tensor);
  tokens.CheckRank(1, "[drafts]");
  Drafts drafts;
  const int64_t count = tokens.shape()[0];
  drafts.tokens = CheckIntegers(tokens, count, "the drafts");
  ends.CheckRank(1, "[requests]");
  drafts.requests = ends.shape()[0];
  drafts.ends = CheckIntegers(ends, drafts.requests, "the requests");
  int64_t before = 0;
  for (int64_t i = 0; i < drafts.requests; ++i) {
    const int64_t end = drafts.ends[i];
    if (end < before || end > count) {
      ends.Fail("has " + std::to_string(end) + " at " + std::to_string(i),
                "numbers from " + std::to_string(before) + " to the number of drafts, " +
                    std::to_string(count) + ", none less than the one before");
    }
    before = end;
  }
  return drafts;
}

// Checks that drafts are less than `vocabulary`. Negative ones are padding.
void CheckTokens(const char* op, const Drafts& drafts, int64_t vocabulary) {
  const int64_t count = drafts.requests == 0 ? 0 : drafts.End(drafts.requests - 1);
  for (int64_t i = 0; i < count; ++i) {
    if (drafts.tokens[i] >= vocabulary) {
      FailOp(op, "draft_token_ids has " + std::to_string(drafts.tokens[i]) + " at " +
                     std::to_string(i) + ", expected less than vocab_size, " +
                     std::to_string(vocabulary));
    }
  }
}

Probabilities CheckProbabilities(const Argument& argument, int64_t rows, int64_t vocabulary,
                                 const char* why) {
  argument.CheckOnDevice()
      .CheckDType(ScalarType::Float)
      .CheckShape({rows, vocabulary}, why)
      .CheckLastDimensionContiguous();
  return {argument.Data<const float>(), argument.strides()[0]};
}

// Checks the draft's probabilities, which are absent if and only if `none` is set.
Probabilities CheckDraftProbabilities(const char* op, const MaybeTensor& tensor, bool none,
                                      int64_t rows, int64_t vocabulary) {
  if (none) return {};
  if (!tensor.has_value()) FailOp(op, "draft_probs is missing, but no_draft_probs is False");
  return CheckProbabilities(Argument(op, "draft_probs", *tensor), rows, vocabulary,
                            "[drafts, vocab_size]");
}

Accepted CheckAccepted(const char* op, const Tensor& output_tensor, const Tensor& bonus_tensor,
                       const MaybeTensor& greedy_tensor, const Drafts& drafts, int64_t max_drafts) {
  const Argument output(op, "output_token_ids", output_tensor);
  output.CheckOnDevice()
      .CheckDTypeIn({ScalarType::Long, ScalarType::Int})
      .CheckRank(2, "[requests, max_spec_len + 1]")
      .CheckLastDimensionContiguous()
      .CheckWritable();
  CheckAtLeast(op, "max_spec_len", max_drafts, 0);
  if (output.shape()[0] != drafts.requests || output.shape()[1] - 1 < max_drafts) {
    output.FailShape("[" + std::to_string(drafts.requests) +
                     ", max_spec_len + 1] with max_spec_len of " + std::to_string(max_drafts));
  }
  for (int64_t i = 0; i < drafts.requests; ++i) {
    if (drafts.End(i) - drafts.Begin(i) > max_drafts) {
      FailOp(op, "cu_num_draft_tokens gives request " + std::to_string(i) + " " +
                     std::to_string(drafts.End(i) - drafts.Begin(i)) +
                     " drafts, expected at most max_spec_len, " + std::to_string(max_drafts));
    }
  }
  Accepted accepted;
  accepted.tokens = {output_tensor.data_ptr(), output.scalar_type() == ScalarType::Long, 1};
  accepted.row = output.strides()[0];
  accepted.bonus = CheckIntegers(Argument(op, "bonus_token_ids", bonus_tensor), drafts.requests,
                                 "one for each request");
  if (greedy_tensor.has_value()) {
    const Argument greedy(op, "is_greedy", *greedy_tensor);
    greedy.CheckOnDevice()
        .CheckDType(ScalarType::Bool)
        .CheckShape({drafts.requests}, "one for each request");
    accepted.greedy = greedy.Data<const bool>();
    accepted.greedy_stride = greedy.strides()[0];
  }
  return accepted;
}

void SampleGreedily(Tensor output, Tensor ends, Tensor drafts_tensor, Tensor target_tensor,
                    Tensor bonus, MaybeTensor greedy, int64_t max_drafts) {
  const char* op = "rejection_greedy_sample_kernel_impl";
  const Drafts drafts = CheckDrafts(op, Argument(op, "cu_num_draft_tokens", ends), drafts_tensor);
  const Argument target(op, "target_argmax", target_tensor);
  target.CheckRank(1, "[drafts]");
  const Integers tokens = CheckIntegers(target, drafts_tensor.sizes()[0], "one for each draft");
  AcceptGreedily(CheckAccepted(op, output, bonus, greedy, drafts, max_drafts), drafts, tokens);
}

void SampleRandomly(Tensor output, Tensor ends, Tensor drafts_tensor, MaybeTensor draft_probs,
                    Tensor target_probs, Tensor bonus, Tensor recovered_tensor,
                    Tensor uniform_tensor, MaybeTensor greedy, int64_t max_drafts,
                    int64_t vocabulary, bool no_draft_probs) {
  const char* op = "rejection_random_sample_kernel_impl";
  const Drafts drafts = CheckDrafts(op, Argument(op, "cu_num_draft_tokens", ends), drafts_tensor);
  const int64_t count = drafts_tensor.sizes()[0];
  const Probabilities target = CheckProbabilities(Argument(op, "target_probs", target_probs), count,
                                                  vocabulary, "[drafts, vocab_size]");
  const Probabilities draft =
      CheckDraftProbabilities(op, draft_probs, no_draft_probs, count, vocabulary);
  const Argument recovered(op, "recovered_token_ids", recovered_tensor);
  recovered.CheckRank(1, "[drafts]");
  const Integers tokens = CheckIntegers(recovered, count, "one for each draft");
  const Argument uniform(op, "uniform_probs", uniform_tensor);
  uniform.CheckOnDevice()
      .CheckDTypeIn({ScalarType::Float, ScalarType::Double})
      .CheckShape({count}, "one for each draft")
      .CheckContiguous();
  CheckTokens(op, drafts, vocabulary);
  Accepted accepted = CheckAccepted(op, output, bonus, greedy, drafts, max_drafts);
  // Without is_greedy, no request is greedy. An array of one element says so for all.
  static constexpr bool kRandom = false;
  if (accepted.greedy == nullptr) {
    accepted.greedy = &kRandom;
    accepted.greedy_stride = 0;
  }
  const Uniforms uniforms{uniform_tensor.data_ptr(), uniform.scalar_type() == ScalarType::Double};
  AcceptRandomly(accepted, drafts, target, draft, tokens, uniforms);
}

template <typename T>
void Expand(const Argument& output, const Argument& input, const Integers& ends, int64_t from,
            int64_t to) {
  T* values = output.Data<T>();
  int64_t at = 0;
  for (int64_t request = 0; request < input.shape()[0]; ++request) {
    T value = input.Data<const T>()[request * input.strides()[0]];
    if (value == static_cast<T>(from)) value = static_cast<T>(to);
    for (; at < ends[request]; ++at) values[at] = value;
  }
}

void ExpandRequests(Tensor output_tensor, Tensor input_tensor, Tensor ends_tensor, int64_t from,
                    int64_t to) {
  const char* op = "expand_kernel_impl";
  const Argument input(op, "input", input_tensor);
  input.CheckOnDevice()
      .CheckDTypeIn({ScalarType::Long, ScalarType::Int, ScalarType::Float})
      .CheckRank(1, "[requests]");
  const Argument output(op, "output", output_tensor);
  output.CheckOnDevice()
      .CheckSameDType(input)
      .CheckRank(1, "[tokens]")
      .CheckContiguous()
      .CheckWritable();
  const Argument ends_argument(op, "cu_num_tokens", ends_tensor);
  ends_argument.CheckRank(1, "[requests]");
  const Integers ends = CheckIntegers(ends_argument, input.shape()[0], "one for each request");
  int64_t before = 0;
  for (int64_t i = 0; i < input.shape()[0]; ++i) {
    if (ends[i] < before || ends[i] > output.shape()[0]) {
      ends_argument.Fail("has " + std::to_string(ends[i]) + " at " + std::to_string(i),
                         "numbers from " + std::to_string(before) + " to the length of output, " +
                             std::to_string(output.shape()[0]) + ", none less than the one before");
    }
    before = ends[i];
  }
  switch (input.scalar_type()) {
    case ScalarType::Long:
      return Expand<int64_t>(output, input, ends, from, to);
    case ScalarType::Int:
      for (const int64_t value : {from, to}) {
        if (value != static_cast<int32_t>(value)) {
          FailOp(op, "replace_from or replace_to is " + std::to_string(value) +
                         ", expected a number of input's dtype, Int");
        }
      }
      return Expand<int32_t>(output, input, ends, from, to);
    default:
      return Expand<float>(output, input, ends, from, to);
  }
}

void SampleRecovered(Tensor output_tensor, Tensor ends, Tensor drafts_tensor,
                     MaybeTensor draft_probs, Tensor target_probs, Tensor weights_tensor,
                     int64_t vocabulary, bool no_draft_probs) {
  const char* op = "sample_recovered_tokens_kernel_impl";
  const Drafts drafts = CheckDrafts(op, Argument(op, "cu_num_draft_tokens", ends), drafts_tensor);
  const int64_t count = drafts_tensor.sizes()[0];
  CheckAtLeast(op, "vocab_size", vocabulary, 1);
  if (vocabulary > std::numeric_limits<int32_t>::max()) {
    FailOp(op, "vocab_size is " + std::to_string(vocabulary) + ", expected less than 2^31");
  }
  const Probabilities target = CheckProbabilities(Argument(op, "target_probs", target_probs), count,
                                                  vocabulary, "[drafts, vocab_size]");
  const Probabilities draft =
      CheckDraftProbabilities(op, draft_probs, no_draft_probs, count, vocabulary);
  const Probabilities weights = CheckProbabilities(
      Argument(op, "inv_q", weights_tensor), drafts.requests, vocabulary, "[requests, vocab_size]");
  const Argument output(op, "output_token_ids", output_tensor);
  output.CheckRank(1, "[drafts]").CheckWritable();
  const Integers tokens = CheckIntegers(output, count, "one for each draft");
  CheckTokens(op, drafts, vocabulary);
  RecoverTokens(tokens, drafts, target, draft, weights, vocabulary);
}

}  // namespace
}  // namespace vllm

STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def(
      "rejection_greedy_sample_kernel_impl(Tensor(a0!) output_token_ids, Tensor "
      "cu_num_draft_tokens, Tensor draft_token_ids, Tensor target_argmax, Tensor bonus_token_ids, "
      "Tensor? is_greedy, SymInt max_spec_len) -> ()");
  m.def(
      "rejection_random_sample_kernel_impl(Tensor(a0!) output_token_ids, Tensor "
      "cu_num_draft_tokens, Tensor draft_token_ids, Tensor? draft_probs, Tensor target_probs, "
      "Tensor bonus_token_ids, Tensor recovered_token_ids, Tensor uniform_probs, Tensor? "
      "is_greedy, SymInt max_spec_len, SymInt vocab_size, bool no_draft_probs) -> ()");
  m.def(
      "expand_kernel_impl(Tensor(a0!) output, Tensor input, Tensor cu_num_tokens, SymInt "
      "replace_from, SymInt replace_to) -> ()");
  m.def(
      "sample_recovered_tokens_kernel_impl(Tensor(a0!) output_token_ids, Tensor "
      "cu_num_draft_tokens, Tensor draft_token_ids, Tensor? draft_probs, Tensor target_probs, "
      "Tensor inv_q, SymInt vocab_size, bool no_draft_probs) -> ()");
}

VLLM_LIBRARY_IMPL(_C, m) {
  m.impl("rejection_greedy_sample_kernel_impl", VLLM_BOX(vllm::SampleGreedily));
  m.impl("rejection_random_sample_kernel_impl", VLLM_BOX(vllm::SampleRandomly));
  m.impl("expand_kernel_impl", VLLM_BOX(vllm::ExpandRequests));
  m.impl("sample_recovered_tokens_kernel_impl", VLLM_BOX(vllm::SampleRecovered));
}
