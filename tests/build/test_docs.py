# SPDX-License-Identifier: Apache-2.0
"""The pages that people read: what they name exists."""

from __future__ import annotations

import argparse
import functools
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from vllm_build import cli
from vllm_build.digests import digest_rules
from vllm_build.native import job_count

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:\.?[\w.-]+/)+[\w.-]*")
_FOLDERS = (
    *(
        "benchmarks",
        "csrc",
        "cmake",
        "vllm",
        "scripts",
        "recipe",
        "variants",
        "toolchain",
        "requirements",
        "third_party",
        "tests",
    ),
    *("docs", "examples", ".ci", ".github"),
)
#: Made by a build, or by a reader who adds something.
_MADE = re.compile(r"benchmarks/results/.*|vllm/_build_info/.*|vllm/_version\.py|vllm/v1/.*\.so")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """Identifiers of headings as GitHub and MyST make them."""
    headings = re.findall(
        r"^#{1,6} (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE
    )
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings
    )


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for link in _LINK.findall(_FENCE.sub("", read(page))):
        name, _, anchor = unquote(link).partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    """Paths from the root of the tree, with or without a pattern; `<name>` is the reader's choice."""
    missing = []
    for span in _SPAN.findall(_FENCE.sub("", read(page))):
        if (
            not _PATH.fullmatch(span)
            or not span.startswith(tuple(f"{folder}/" for folder in _FOLDERS))
            or _MADE.fullmatch(span)
        ):
            continue
        if not (ROOT / span).exists():
            missing.append(span)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    code = "\n".join([*_SPAN.findall(_FENCE.sub("", read(page))), *_CONSOLE.findall(read(page))])
    (subcommands,) = (
        action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    named = {word for word in re.findall(r"vllm-build ([a-z-]+)", code) if not word.startswith("-")}
    made = {
        word
        for line in re.findall(r"(?:^|[`(])(?:\$ )?make ((?:[a-z-]+ ?)+)", code, re.MULTILINE)
        for word in line.split()
    }
    assert named <= set(subcommands.choices)
    assert made <= targets


def test_architecture_answers_four_questions() -> None:
    """Where an op's schema is, where CUDA's architectures are listed, what decides the number of jobs, how a toolchain package is added."""
    page = read("docs/architecture.md")
    table = page[: page.index("## The tree")]
    jobs_module = Path(job_count.__file__).relative_to(ROOT).as_posix()
    files = (
        "csrc/bindings/<topic>.cc",
        "csrc/kernels.toml",
        "variants/<variant>.yaml",
        "toolchain/recipes/",
        "toolchain/wheels.toml",
        jobs_module,
    )
    for words in files:
        assert f"`{words}`" in table
    assert f"`{Path(digest_rules.__file__).relative_to(ROOT).as_posix()}`" in table
    assert "m.def(" in read("csrc/bindings/norm.cc")
    assert "cuda_arch_list" in read("variants/cuda13.yaml")


def test_the_readers_first_page_names_every_page() -> None:
    """The site's contents: a page that no list names cannot be found."""
    index = read("docs/index.md")
    listed = set(re.findall(r"^(?:.*<)?([\w./-]+)>?$", index, re.MULTILINE))
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/index.md":
            assert page.removeprefix("docs/").removesuffix(".md") in listed
