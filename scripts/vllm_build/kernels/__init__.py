# SPDX-License-Identifier: Apache-2.0
"""The tables of kernels and ops, and the plan that a device, a toolkit and a list of architectures give."""
