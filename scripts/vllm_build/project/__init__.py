# SPDX-License-Identifier: Apache-2.0
"""The version of a build, and the record of its content."""
