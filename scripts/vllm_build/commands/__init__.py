# SPDX-License-Identifier: Apache-2.0
"""The subcommands of ``vllm-build``, one module each.

A module has ``NAME``, ``HELP``, ``add_arguments(parser)`` and ``run(arguments, console) -> exit
status``. It reads its arguments, calls the library and shows the result.
"""
