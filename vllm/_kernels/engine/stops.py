# SPDX-License-Identifier: Apache-2.0
"""Lets the engine's server stop as it is asked to, in the middle of its start or in its service."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from vllm._kernels.engine import failure

if TYPE_CHECKING:
    from collections.abc import Iterator


def use() -> None:
    """Change the engine's functions. Call it once, before the engine's modules are imported."""
    _keep_interrupts()
    _note_requests()
    _note_ends()


def _keep_interrupts() -> None:
    """Let an interrupt end the wait for the engine's processes.

    Upstream's context of a socket drops it, so the server would go on and serve.
    """
    from vllm.utils import network_utils  # noqa: PLC0415 - the engine is not there without it

    upstream = network_utils.zmq_socket_ctx

    @contextlib.contextmanager
    def zmq_socket_ctx(*arguments: Any, **options: Any) -> Iterator[Any]:
        interrupt = None
        with upstream(*arguments, **options) as socket:
            try:
                yield socket
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    network_utils.zmq_socket_ctx = zmq_socket_ctx


def _note_requests() -> None:
    """Note when the server is asked to stop: that its engine then ends is no failure."""
    from vllm.v1.engine import async_llm  # noqa: PLC0415 - the engine is not there without it

    shutdown = async_llm.AsyncLLM.shutdown

    def noted(client: Any, *arguments: Any, **options: Any) -> Any:
        failure.note_request()
        return shutdown(client, *arguments, **options)

    async_llm.AsyncLLM.shutdown = noted
    logging.getLogger(async_llm.__name__).addFilter(_is_worth_saying)


def _note_ends() -> None:
    """Note that a process of the engine died, which upstream's server without an API drops."""
    from vllm.v1.engine import utils  # noqa: PLC0415 - the engine is not there without it

    monitor = utils.CoreEngineProcManager.monitor_engine_liveness

    def noted(manager: Any) -> None:
        monitor(manager)
        if manager.failed_proc_name is not None:
            failure.note_end()

    utils.CoreEngineProcManager.monitor_engine_liveness = noted


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Whether a message is more than that the engine ended when it was asked to."""
    error = record.exc_info[1] if record.exc_info else None
    return not (type(error).__name__ == "EngineDeadError" and failure.is_requested())
