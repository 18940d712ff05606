# SPDX-License-Identifier: Apache-2.0
"""Examines what a machine has for a build, what is missing, and which settings conflict."""
