# SPDX-License-Identifier: Apache-2.0
"""The parts of ``bench_kernels.py`` and ``bench_gpu.py``.

``child`` and the modules that it imports need torch and run in child processes. The others need no
torch.
"""
