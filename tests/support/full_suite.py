# SPDX-License-Identifier: Apache-2.0
"""Tells ``make test`` from ``make test-full``, which also runs what guards rare paths."""

from __future__ import annotations

import os

import pytest

#: ``make test-full`` sets VLLM_TEST_FULL=1.
FULL = os.environ.get("VLLM_TEST_FULL") == "1"
#: Marks a test that ``make test`` skips.
full_only = pytest.mark.skipif(not FULL, reason="guards a rare path: make test-full")
