# SPDX-License-Identifier: Apache-2.0
"""The error that every failed check raises."""

from __future__ import annotations

from vllm_build.util.errors import IntegrityError

#: Checks that compare a sound build with this tree and this machine. If one fails, another build
#: may fit, or the output can be compiled.
FITNESS = ("private", "digest", "platform", "python-abi", "torch", "device", "toolkit")


class RefusedError(IntegrityError):
    """A check failed, so the kernels were not reused.

    Attributes:
        check: the name of the failed check.
    """

    def __init__(
        self, check: str, where: str, found: str, *, expected: str, remedy: str | None = None
    ) -> None:
        super().__init__(
            f"{where}: {found} (check: {check})",
            expected=expected,
            remedy=remedy
            or (
                "use kernels from a source that you trust, or unset VLLM_USE_PRECOMPILED to "
                "compile them"
            ),
        )
        self.check = check

    @property
    def unfit(self) -> bool:
        """Whether the files are sound, but built for another tree or machine."""
        return self.check in FITNESS
