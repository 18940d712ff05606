# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_build``."""

import sys

from vllm_build.entry import main

if __name__ == "__main__":
    sys.exit(main())
