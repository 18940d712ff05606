# SPDX-License-Identifier: Apache-2.0
"""Turns a recipe into packages with the same bytes every time: rattler-build, and what is done to each package afterwards."""
