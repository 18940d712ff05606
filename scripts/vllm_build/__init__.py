# SPDX-License-Identifier: Apache-2.0
"""The build library of vllm. It plans builds; CMake, Ninja and rattler-build execute them."""
