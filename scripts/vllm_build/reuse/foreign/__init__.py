# SPDX-License-Identifier: Apache-2.0
"""Official wheels that replace a build of this tree, after an audit."""
