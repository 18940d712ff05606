# SPDX-License-Identifier: Apache-2.0
"""The parts of ``bench_kernels.py``.

``child`` and what it imports need torch and run in child processes; the rest runs without.
"""
