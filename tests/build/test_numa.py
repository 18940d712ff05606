# SPDX-License-Identifier: Apache-2.0
"""Binding to NUMA nodes: the system calls of ``csrc/memory/numa.cc`` on machines of all kinds.

A program defines ``syscall`` itself and prints what it is called with. One test asks the kernel of
this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = r"""
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory/numa.h"

#ifdef RECORD
// Prints a call, with the numbers of the nodes, and fails as the environment says: FAIL=<call>.
static void PrintNodes(const unsigned long* words) {
  std::printf(" [");
  const char* comma = "";
  for (int i = 0; i < 1024; ++i) {
    if (words[i / 64] >> (i % 64) & 1) { std::printf("%s%d", comma, i); comma = ","; }
  }
  std::printf("]");
}
static bool Fails(const char* call) {
  const char* fail = std::getenv("FAIL");
  if (fail == nullptr || std::string(fail) != call) return false;
  errno = EPERM;
  return true;
}
extern "C" long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long result = 0;
  if (number == SYS_set_mempolicy) {
    std::printf("set %ld", va_arg(list, long));
    PrintNodes(va_arg(list, unsigned long*));
    std::printf(" %lu\n", va_arg(list, unsigned long));
    result = Fails("set") ? -1 : 0;
  } else if (number == SYS_get_mempolicy) {
    va_arg(list, int*);
    unsigned long* words = va_arg(list, unsigned long*);
    words[0] = std::strtoul(std::getenv("ALLOWED"), nullptr, 0);
    std::printf("get %lu", va_arg(list, unsigned long));
    va_arg(list, void*);
    std::printf(" %ld\n", va_arg(list, long));
    result = Fails("get") ? -1 : 0;
  } else if (number == SYS_migrate_pages) {
    std::printf("move %d", va_arg(list, int) == getpid());
    std::printf(" %lu", va_arg(list, unsigned long));
    PrintNodes(va_arg(list, unsigned long*));
    PrintNodes(va_arg(list, unsigned long*));
    std::printf("\n");
    result = Fails("move") ? -1 : 3;
  }
  va_end(list);
  return result;
}
#endif

int main(int count, char** arguments) {
  std::vector<int64_t> nodes;
  for (int i = 2; i < count; ++i) nodes.push_back(std::strtoll(arguments[i], nullptr, 10));
  try {
    const std::string warning = vllm::BindMemory(nodes, arguments[1]);
    if (!warning.empty()) std::printf("warning: %s\n", warning.c_str());
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    return 1;
  }
#ifndef RECORD
  int policy = -1;
  unsigned long words[16] = {};
  if (syscall(SYS_get_mempolicy, &policy, words, 1025UL, nullptr, 0L) != 0) return 2;
  std::printf("policy %d of %lx\n", policy, words[0]);
#endif
}
"""
EVERY = "1025"


def build(folder: Path, *definitions: str) -> Path:
    compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))),
                    None)  # fmt: skip
    if compiler is None:
        pytest.skip("no compiler: c++, g++ and clang++ are not on PATH")
    source, program = folder / "program.cc", folder / "program"
    source.write_text(PROGRAM, encoding="utf-8")
    subprocess.run(
        [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", *definitions, "-I", ROOT / "csrc",
         source, ROOT / "csrc" / "memory" / "numa.cc", "-o", program],
        check=True,
    )  # fmt: skip
    return program


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux":
        pytest.skip("the calls are Linux's")
    return build(tmp_path_factory.mktemp("numa"), "-DRECORD")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder like /sys/devices/system/node, of a machine with memory on nodes 0 to 2 and 4."""
    (tmp_path / "online").write_text("0-7\n")
    (tmp_path / "has_memory").write_text("0-2,4\n")
    return tmp_path


def bind(program: Path, machine: Path, *nodes: int, allowed: int = 0b10111, fail: str = "") -> str:
    done = subprocess.run(
        [program, machine, *map(str, nodes)],
        env=os.environ | {"ALLOWED": str(allowed), "FAIL": fail},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == done.stdout.startswith("error: "), done
    return done.stdout


def test_one_node(recorder: Path, machine: Path) -> None:
    assert bind(recorder, machine, 2) == (
        f"set 2 [2] {EVERY}\nget {EVERY} 4\nmove 1 {EVERY} [0,1,4] [2]\n"
    )


def test_several_nodes_take_turns(recorder: Path, machine: Path) -> None:
    assert bind(recorder, machine, 4, 0) == (
        f"set 3 [0,4] {EVERY}\nget {EVERY} 4\nmove 1 {EVERY} [1,2] [0,4]\n"
    )


def test_no_page_is_elsewhere(recorder: Path, machine: Path) -> None:
    assert bind(recorder, machine, 1, allowed=0b10) == f"set 2 [1] {EVERY}\nget {EVERY} 4\n"


@pytest.mark.parametrize(
    ("text", "nodes"),
    [("0-2,4\n", ()), ("0\n", (0,)), ("3", (3,)), ("", (0,)), ("\n", (9,)), ("what?\n", (9,))],
    ids=["no nodes", "one node", "another number", "empty", "blank", "unreadable"],
)
def test_nothing_to_bind(recorder: Path, tmp_path: Path, text: str, nodes: tuple[int, ...]) -> None:
    (tmp_path / "has_memory").write_text(text)
    assert not bind(recorder, tmp_path, *nodes)


def test_a_machine_that_says_nothing(recorder: Path, tmp_path: Path) -> None:
    assert not bind(recorder, tmp_path / "none", 0)


def test_an_old_kernel_lists_nodes_that_are_online(recorder: Path, tmp_path: Path) -> None:
    (tmp_path / "online").write_text("0,1\n")
    assert bind(recorder, tmp_path, 1, allowed=0b11).startswith("set 2 [1]")


@pytest.mark.parametrize("node", [-1, 3, 5, 2**40])
def test_a_node_without_memory(recorder: Path, machine: Path, node: int) -> None:
    assert bind(recorder, machine, 0, node) == (
        f"error: node_ids contains {node}, expected NUMA nodes with memory: 0, 1, 2, 4\n"
    )


def test_a_node_beyond_the_kernel_s_sets(recorder: Path, tmp_path: Path) -> None:
    (tmp_path / "has_memory").write_text("0,2000\n")
    assert bind(recorder, tmp_path, 2000).startswith("warning: The NUMA nodes 2000 have too large")


@pytest.mark.parametrize(
    ("fail", "calls", "means"),
    [
        ("set", 1, "Memory comes from all nodes."),
        ("get", 2, "Pages that exist stay where they are."),
        ("move", 3, "Pages that exist stay where they are."),
    ],
)
def test_a_container_forbids_it(
    recorder: Path, machine: Path, fail: str, calls: int, means: str
) -> None:
    *made, warning = bind(recorder, machine, 1, fail=fail).splitlines()
    assert len(made) == calls
    assert warning.startswith("warning: ")
    assert "failed for memory of the NUMA nodes 1: Operation not permitted." in warning
    assert "unless it has the capability SYS_NICE" in warning
    assert warning.endswith(means)


def test_this_machine_s_kernel_takes_the_call(tmp_path: Path, machine: Path) -> None:
    """Node 0 has memory on every machine. Its kernel then reports the policy MPOL_BIND."""
    if sys.platform != "linux":
        pytest.skip("the calls are Linux's")
    folder = tmp_path / "program"
    folder.mkdir()
    said = bind(build(folder), machine, 0)
    if "Operation not permitted" in said:
        pytest.skip(f"this environment forbids the calls: {said}")
    assert said == "policy 2 of 1\n"
