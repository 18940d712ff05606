# SPDX-License-Identifier: Apache-2.0
"""Refuses one backend for structured output, whose library is not installed.

The engine imports its module for this backend with the first structured request, whichever backend
it uses. That module needs the library when it is imported, so every such request would fail.
"""

from __future__ import annotations

from typing import Any, NoReturn

MESSAGE = (
    "the backend lm-format-enforcer for structured output is not installed: "
    "pip install lm-format-enforcer, or use xgrammar or guidance"
)


def validate_structured_output_request_lm_format_enforcer(_params: Any) -> NoReturn:
    """Refuse a request.

    Raises:
        VLLMValidationError: always, which the server answers with the status 400.
    """
    from vllm.exceptions import VLLMValidationError  # noqa: PLC0415 - of the engine

    raise VLLMValidationError(MESSAGE)


class LMFormatEnforcerBackend:
    """The backend, in place of the engine's class of the same name."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Refuse to start.

        Raises:
            ImportError: always.
        """
        raise ImportError(MESSAGE)
