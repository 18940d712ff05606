// SPDX-License-Identifier: Apache-2.0
// Reads blocks of keys and values from pages that are smaller than a block.
// third_party/patches/flash-attention inserts the calls into FlashAttention's kernel, which
// otherwise expects each block in one page.
#pragma once

#include <cute/tensor.hpp>

namespace vllm::flash {

// The location of a sequence's rows, for one head:
//   base           first element of the head in page 0
//   table          pages of the sequence, in order
//   page_stride    elements from one page to the next
//   row_stride     elements from one row of a page to the next
template <typename Element>
struct Pages {
  const Element* base;
  const int* table;
  int64_t page_stride;
  int64_t row_stride;
  int rows_per_page;

  CUTE_HOST_DEVICE const Element* Row(int row) const {
    const int page = row / rows_per_page;
    return base + table[page] * page_stride + (row - page * rows_per_page) * row_stride;
  }
};

// Copies one thread's part of a block that begins at row `first` of the sequence. Rows from `valid`
// of the block on are not read, because the table may end with the last row. With kClear they are
// set to zero; otherwise they are left unchanged.
//   coordinates    (row, column) in the block of every element that the thread copies
//   in_head        whether each of its pieces of a row is within the head; ignored if kWholeRows
template <bool kAllRows, bool kWholeRows, bool kClear, typename TiledCopy, typename Element,
          typename Source, typename Target, typename Coordinates, typename Predicate>
CUTE_HOST_DEVICE void CopyPaged(TiledCopy tiled_copy, const Pages<Element>& pages,
                                const Source& source, Target& target,
                                const Coordinates& coordinates, const Predicate& in_head, int first,
                                int valid) {
  using namespace cute;
  // Not unrolled: the kernel has no registers to spare, and six copies of this loop would cause
  // spills.
  CUTE_NO_UNROLL
  for (int m = 0; m < size<1>(target); ++m) {
    const int row = get<0>(coordinates(0, m, 0));
    if (!kAllRows && row >= valid) {
      if (kClear) clear(target(_, m, _));
      continue;
    }
    const Element* from = pages.Row(first + row);
    CUTE_UNROLL
    for (int k = 0; k < size<2>(target); ++k) {
      if (kWholeRows || in_head(k)) {
        const auto piece = make_tensor(make_gmem_ptr(from + get<1>(coordinates(0, 0, k))),
                                       source(_, m, k).layout());
        copy(tiled_copy, piece, target(_, m, k));
      } else {
        clear(target(_, m, k));
      }
    }
  }
}

}  // namespace vllm::flash
