# SPDX-License-Identifier: Apache-2.0
"""Compiles the extensions: CMake's configuration, the number of jobs, the build and its record."""
