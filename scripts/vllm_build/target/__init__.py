# SPDX-License-Identifier: Apache-2.0
"""What a build is for: the device, its toolkit and the torch that the result runs with."""
