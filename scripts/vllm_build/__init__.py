# SPDX-License-Identifier: Apache-2.0
"""The build library of vllm: decides what is built, how, and from what; CMake, Ninja and rattler-build execute it."""
