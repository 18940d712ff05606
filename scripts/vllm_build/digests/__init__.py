# SPDX-License-Identifier: Apache-2.0
"""The inputs of each output, and the digests over them."""
