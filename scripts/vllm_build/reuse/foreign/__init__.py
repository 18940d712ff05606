# SPDX-License-Identifier: Apache-2.0
"""Official wheels in place of a build of this tree, after an audit."""
