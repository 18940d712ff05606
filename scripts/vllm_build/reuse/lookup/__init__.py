# SPDX-License-Identifier: Apache-2.0
"""Where kernels are looked for, and what becomes of each output."""
