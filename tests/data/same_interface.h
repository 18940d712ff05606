// SPDX-License-Identifier: Apache-2.0
// Compares our declarations of a foreign interface with the foreign headers, at compile time:
// values, the place of every member, and the shape of every function. `mine` is the namespace of
// ours.
#pragma once

#include <cstddef>
#include <type_traits>

#define SAME(ours, theirs) \
  static_assert(static_cast<long long>(ours) == static_cast<long long>(theirs), #theirs)

#define PLACE(ours, our_member, theirs, their_member)                     \
  SAME(offsetof(mine::ours, our_member), offsetof(theirs, their_member)); \
  SAME(sizeof(mine::ours::our_member), sizeof(theirs{}.their_member))

// Two types are passed alike: pointers as pointers, everything else as integers of one size.
template <typename A, typename B>
constexpr bool kAlike = std::is_pointer_v<A> == std::is_pointer_v<B> && sizeof(A) == sizeof(B);

template <typename Ours, typename Theirs>
struct Alike : std::false_type {};
template <typename R, typename... Ours, typename S, typename... Theirs>
struct Alike<R (*)(Ours...), S (*)(Theirs...)> {
  static constexpr bool Compare() {
    if constexpr (sizeof...(Ours) == sizeof...(Theirs))
      return kAlike<R, S> && (... && kAlike<Ours, Theirs>);
    return false;
  }
  static constexpr bool value = Compare();
};
