# SPDX-License-Identifier: Apache-2.0
"""The parts of upstream's engine that this package has, under upstream's module paths."""
