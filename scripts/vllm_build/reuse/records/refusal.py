# SPDX-License-Identifier: Apache-2.0
"""The error of every check: which one failed, on what, what was found, and what to do."""

from __future__ import annotations

from vllm_build.util.errors import IntegrityError

#: Checks of whether a sound build is one for this tree and this machine. Another build may still
#: fit, or a compiler make one.
FITNESS = ("private", "digest", "platform", "python-abi", "torch", "device", "toolkit")


class RefusedError(IntegrityError):
    """Kernels were not reused.

    Attributes:
        check: the name of the check that failed.
    """

    def __init__(
        self, check: str, where: str, found: str, *, expected: str, remedy: str | None = None
    ) -> None:
        super().__init__(
            f"{where}: {found} (check: {check})",
            expected=expected,
            remedy=remedy
            or (
                "take the kernels from a source that you trust, or unset VLLM_USE_PRECOMPILED to "
                "compile them"
            ),
        )
        self.check = check

    @property
    def unfit(self) -> bool:
        """Whether the files are sound and only made for something else."""
        return self.check in FITNESS
