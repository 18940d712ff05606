# SPDX-License-Identifier: Apache-2.0
"""GPU architectures: how they are spelled, and which toolkit compiles for which."""
