# SPDX-License-Identifier: Apache-2.0
"""Checks of linked libraries: what they need, what they register, which ABI they use."""
