# SPDX-License-Identifier: Apache-2.0
"""The process of a peer.

It runs in an environment with torch and an engine, and needs nothing else but the standard library.
Its folder is on the module path of the engine, so ``kernels`` next to ``engines`` is not:
transformers looks for a package of that name.
"""
