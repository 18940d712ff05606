# SPDX-License-Identifier: Apache-2.0
"""Writes measured tables into pages of the documentation, between marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.util.errors import PackageTestError
from vllm_build.util.files import write_text

if TYPE_CHECKING:
    from pathlib import Path


def marks(program: str) -> tuple[str, str]:
    """The lines before and after what ``benchmarks/<program>.py --docs`` writes."""
    name = program.replace("_", "-")
    return (
        f"<!-- {name}: written by benchmarks/{program}.py --docs -->\n",
        f"<!-- end of {name} -->\n",
    )


def replace(page: Path, program: str, paragraphs: list[str]) -> None:
    """Put ``paragraphs`` between the program's marks.

    Raises:
        PackageTestError: the page has no marks.
    """
    begin, end = marks(program)
    text = page.read_text(encoding="utf-8")
    if begin not in text or end not in text.partition(begin)[2]:
        raise PackageTestError(f"{page} has no marks for the table", expected=begin.strip())
    before, _, rest = text.partition(begin)
    middle = "\n" + "\n\n".join(paragraphs) + "\n\n"
    write_text(page, before + begin + middle + end + rest.partition(end)[2])
