// SPDX-License-Identifier: Apache-2.0
// `str` arguments of ops. Include this file before boxing an op that takes one.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/shim_utils.h>

#include <string>

namespace vllm {

// A `str` argument. Take it by value for `str` in the schema, and as std::optional for `str?`. In
// torch's headers before 2.14, the conversion to std::string leaks one string for each call; this
// type frees it.
struct StringArgument {
  std::string value;
};

}  // namespace vllm

template <>
struct torch::stable::detail::ToImpl<vllm::StringArgument> {
  static vllm::StringArgument call(StableIValue handed, uint64_t /*extension_build_version*/,
                                   bool /*is_internal*/) {
    // Frees the string on every path.
    struct Owner {
      StringHandle handle;
      ~Owner() { torch_delete_string(handle); }
    };
    const Owner owner{torch::stable::detail::to<StringHandle>(handed)};
    const char* data = nullptr;
    size_t length = 0;
    TORCH_ERROR_CODE_CHECK(torch_string_c_str(owner.handle, &data));
    TORCH_ERROR_CODE_CHECK(torch_string_length(owner.handle, &length));
    return {std::string(data, length)};
  }
};
