# SPDX-License-Identifier: Apache-2.0
"""The local conda channel: locked Debian and PyPI files in, conda packages out."""
