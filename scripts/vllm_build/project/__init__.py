# SPDX-License-Identifier: Apache-2.0
"""What a build says of itself: its version, and the record of what was built."""
