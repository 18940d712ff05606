# SPDX-License-Identifier: Apache-2.0
"""What this project adds to vllm: the loader of the compiled kernels, their ops, and platforms.

The package works in both faces of ``vllm``: below upstream's engine, and alone in a source tree
(docs/architecture.md). Nothing in it imports the engine, except :mod:`vllm._kernels.engine`.
"""
