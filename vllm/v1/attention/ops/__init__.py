# SPDX-License-Identifier: Apache-2.0
"""Functions that upstream's attention backends call."""
