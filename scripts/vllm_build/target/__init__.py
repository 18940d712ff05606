# SPDX-License-Identifier: Apache-2.0
"""The target of a build: the device, its toolkit and the torch that the result runs with."""
