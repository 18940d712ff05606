# SPDX-License-Identifier: Apache-2.0
"""The subcommands of ``vllm-build``, one module each.

``vllm_build.cli`` has their names, and imports only the module of the command that runs. A module
has ``HELP``, ``add_arguments(parser)`` and ``run(arguments, console) -> exit status``. It reads its
arguments, calls the library and shows the result.
"""
