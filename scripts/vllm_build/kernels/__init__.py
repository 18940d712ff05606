# SPDX-License-Identifier: Apache-2.0
"""The tables of kernels and ops, and the plan of a build for a device and its architectures."""
