# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_build``."""

import sys

from vllm_build.cli import main

sys.exit(main())
