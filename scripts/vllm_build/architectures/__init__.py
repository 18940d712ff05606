# SPDX-License-Identifier: Apache-2.0
"""GPU architectures: their spelling, and the toolkits that compile for them."""
