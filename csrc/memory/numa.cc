// SPDX-License-Identifier: Apache-2.0
#include "memory/numa.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <stdexcept>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vllm {
namespace {

// Reads a list of the kernel, such as "0-2,5". Returns no number if it is none.
std::vector<int64_t> ParseList(const std::string& text) {
  constexpr int64_t kMost = 1 << 16;  // more nodes than any kernel is configured for
  std::vector<int64_t> numbers;
  size_t at = 0;
  const auto read = [&](int64_t& number) {
    if (at == text.size() || std::isdigit(static_cast<unsigned char>(text[at])) == 0) return false;
    number = 0;
    for (; at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0; ++at)
      number = std::min(kMost, number * 10 + (text[at] - '0'));
    return number < kMost;
  };
  while (at < text.size() && text[at] != '\n') {
    int64_t first = 0;
    if (!read(first)) return {};
    int64_t last = first;
    if (at < text.size() && text[at] == '-') {
      ++at;
      if (!read(last)) return {};
    }
    for (int64_t number = first; number <= last; ++number) numbers.push_back(number);
    if (at < text.size() && text[at] == ',') ++at;
  }
  return numbers;
}

// Returns the nodes that have memory. Kernels before 3.8 only know which ones are online.
std::vector<int64_t> FindNodesWithMemory(const std::string& folder) {
  for (const char* name : {"/has_memory", "/online"}) {
    std::ifstream file(folder + name);
    std::string line;
    if (std::getline(file, line)) return ParseList(line);
  }
  return {};
}

std::string List(const std::vector<int64_t>& nodes) {
  std::string text;
  for (const int64_t node : nodes) text += (text.empty() ? "" : ", ") + std::to_string(node);
  return text;
}

#if defined(__linux__)

// Linux's interface (mbind(2), set_mempolicy(2), get_mempolicy(2)); its header is a part of
// libnuma.
constexpr long kBind = 2;
constexpr long kInterleave = 3;
constexpr long kMemsAllowed = 1L << 2;

// A set of nodes as the kernel takes it. get_mempolicy refuses a set that is smaller than that of
// the kernel, which has at most 1024 nodes.
class NodeSet {
 public:
  static constexpr size_t kNodes = 1024;
  // The calls take the number of bits plus one.
  static constexpr unsigned long kArgument = kNodes + 1;

  void Add(int64_t node) { words_[Word(node)] |= Bit(node); }
  void Remove(int64_t node) { words_[Word(node)] &= ~Bit(node); }
  bool Has(int64_t node) const { return (words_[Word(node)] & Bit(node)) != 0; }
  bool IsEmpty() const {
    return std::all_of(words_, words_ + kWords, [](unsigned long word) { return word == 0; });
  }
  unsigned long* data() { return words_; }

 private:
  static constexpr size_t kBits = 8 * sizeof(unsigned long);
  static constexpr size_t kWords = kNodes / kBits;
  static size_t Word(int64_t node) { return static_cast<size_t>(node) / kBits; }
  static unsigned long Bit(int64_t node) { return 1UL << (static_cast<size_t>(node) % kBits); }

  unsigned long words_[kWords] = {};
};

std::string Explain(const char* call, const std::vector<int64_t>& nodes) {
  const int error = errno;
  std::string text = std::string(call) + " failed for memory of the NUMA nodes " + List(nodes) +
                     ": " + std::strerror(error) + ".";
  if (error == EPERM || error == ENOSYS)
    text += " A container forbids it unless it has the capability SYS_NICE.";
  return text;
}

std::string ApplyPolicy(const std::vector<int64_t>& nodes) {
  NodeSet wanted;
  for (const int64_t node : nodes) wanted.Add(node);
  if (syscall(SYS_set_mempolicy, nodes.size() == 1 ? kBind : kInterleave, wanted.data(),
              NodeSet::kArgument) != 0) {
    return Explain("set_mempolicy", nodes) + " Memory comes from all nodes.";
  }
  NodeSet others;
  if (syscall(SYS_get_mempolicy, nullptr, others.data(), NodeSet::kArgument, nullptr,
              kMemsAllowed) != 0) {
    return Explain("get_mempolicy", nodes) + " Pages that exist stay where they are.";
  }
  for (const int64_t node : nodes) others.Remove(node);
  if (others.IsEmpty()) return "";
  // A positive result is the number of pages that could not be moved, such as shared ones.
  if (syscall(SYS_migrate_pages, getpid(), NodeSet::kArgument, others.data(), wanted.data()) < 0)
    return Explain("migrate_pages", nodes) + " Pages that exist stay where they are.";
  return "";
}

#endif

}  // namespace

std::string BindMemory(const std::vector<int64_t>& nodes, const std::string& folder) {
  const std::vector<int64_t> found = FindNodesWithMemory(folder);
  if (nodes.empty() || found.empty()) return "";
  for (const int64_t node : nodes) {
    if (std::find(found.begin(), found.end(), node) == found.end()) {
      throw std::runtime_error("node_ids contains " + std::to_string(node) +
                               ", expected NUMA nodes with memory: " + List(found));
    }
  }
  if (found.size() == 1) return "";
#if defined(__linux__)
  if (*std::max_element(nodes.begin(), nodes.end()) >= static_cast<int64_t>(NodeSet::kNodes))
    return "The NUMA nodes " + List(nodes) +
           " have too large numbers. Memory comes from all nodes.";
  return ApplyPolicy(nodes);
#else
  return "";
#endif
}

}  // namespace vllm
