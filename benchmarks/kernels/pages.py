# SPDX-License-Identifier: Apache-2.0
"""Writes measured tables into pages of the documentation, between marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_build.util.errors import PackageTestError
from vllm_build.util.files import write_text

if TYPE_CHECKING:
    from pathlib import Path


def marks(program: str, options: str = "") -> tuple[str, str]:
    """The lines before and after what ``benchmarks/<program>.py <options> --docs`` writes."""
    name = " ".join([program.replace("_", "-"), *options.split()])
    words = " ".join([f"benchmarks/{program}.py", *options.split(), "--docs"])
    return f"<!-- {name}: written by {words} -->\n", f"<!-- end of {name} -->\n"


def replace(page: Path, program: str, paragraphs: list[str], options: str = "") -> None:
    """Put ``paragraphs`` between the marks of a program, run with ``options``.

    Raises:
        PackageTestError: the page has no marks.
    """
    begin, end = marks(program, options)
    text = page.read_text(encoding="utf-8")
    if begin not in text or end not in text.partition(begin)[2]:
        raise PackageTestError(f"{page} has no marks for the table", expected=begin.strip())
    before, _, rest = text.partition(begin)
    middle = "\n" + "\n\n".join(paragraphs) + "\n\n"
    write_text(page, before + begin + middle + end + rest.partition(end)[2])
