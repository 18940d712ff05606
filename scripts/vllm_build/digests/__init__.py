# SPDX-License-Identifier: Apache-2.0
"""What shapes an output, and the digests over it."""
