# SPDX-License-Identifier: Apache-2.0
"""The documentation names only files, commands, options and variables that exist."""

from __future__ import annotations

import argparse
import ast
import functools
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from vllm_build import cli
from vllm_build.conda import variants
from vllm_build.digests import digest_rules
from vllm_build.native import job_count

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:\.?[\w.-]+/)+[\w.*-]*")
#: A source file by its name alone, or with some of its folders.
_SOURCE = re.compile(r"(?:[\w.-]+/)*[\w.-]+\.(?:cc|cmake|cu|cuh|h|py|toml)")
#: The head of a file outside the tree, and placeholders for the files of a new op.
_NOT_OURS = {"cuda.h", "x.cu", "x_cpu.cc"}
_VARIABLE = re.compile(
    r"\b(?:CMAKE|CMPLR|CUDA|HIGHWAY|MAX|NVCC|PYTORCH|ROCM|TORCH|VLLM)_[A-Z][A-Z0-9_]*\b(?!\*)"
)
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
#: Builds make these.
_MADE = re.compile(
    r"benchmarks/results/.*|vllm/_build_info/.*|vllm/(_kernels/)?_version\.py|vllm/v1/.*\.so"
)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def command_lines(page: str) -> list[str]:
    """The lines of console blocks, without prompts and comments."""
    lines = "".join(_CONSOLE.findall(read(page))).splitlines()
    return [re.sub(r"\s#\s.*", "", line.removeprefix("$ ")) for line in lines]


@functools.cache
def source_files() -> frozenset[str]:
    """Tracked source files, from ``/`` on."""
    return frozenset(
        f"/{path.relative_to(ROOT).as_posix()}"
        for folder in (*_FOLDERS, ".")
        for path in (ROOT / folder).glob("*" if folder == "." else "**/*")
        if _SOURCE.fullmatch(path.name) and path.is_file()
    )


@functools.cache
def words_of_the_code() -> frozenset[str]:
    """Names in capitals in everything that a build or the package runs."""
    folders = ("cmake", "csrc", "recipe", "scripts", "toolchain", "vllm")
    files = [
        *(ROOT / name for name in ("CMakeLists.txt", "Makefile", "tests/kernels/emulate.py")),
        *(path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()),
    ]
    return frozenset(
        word
        for file in files
        if file.suffix in {"", ".txt", ".py", ".sh", ".cmake", ".cc", ".h", ".yaml"}
        for word in re.findall(r"\b[A-Z][A-Z0-9_]+\b", file.read_text(encoding="utf-8"))
    )


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
    """Paths from the root of the tree, with wildcards; `<name>` is the reader's choice."""
    missing = []
    for span in _SPAN.findall(_FENCE.sub("", read(page))):
        if (
            not _PATH.fullmatch(span)
            or not span.startswith(tuple(f"{folder}/" for folder in _FOLDERS))
            or _MADE.fullmatch(span)
        ):
            continue
        if not any(ROOT.glob(span)):
            missing.append(span)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_sources_that_are_named_exist(page: str) -> None:
    """The pages may name a source file without its folder where that is clear."""
    spans = {span for span in _SPAN.findall(_FENCE.sub("", read(page))) if _SOURCE.fullmatch(span)}
    known = source_files()
    assert {
        span
        for span in spans - _NOT_OURS
        if not _MADE.fullmatch(span) and not any(path.endswith(f"/{span}") for path in known)
    } == set()


@pytest.mark.parametrize("page", PAGES)
def test_files_in_commands_exist(page: str) -> None:
    """Paths in command lines begin at the root of the tree."""
    words = [word for line in command_lines(page) for word in _PATH.findall(line)]
    named = {word for word in words if word.startswith(tuple(f"{folder}/" for folder in _FOLDERS))}
    assert {word for word in named if not any(ROOT.glob(word))} == set()


@pytest.mark.parametrize("page", PAGES)
def test_variables_that_are_named_are_read(page: str) -> None:
    named = set(_VARIABLE.findall(read(page)))
    assert {name for name in named if name not in words_of_the_code()} == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    code = "\n".join([*_SPAN.findall(_FENCE.sub("", read(page))), *_CONSOLE.findall(read(page))])
    (subcommands,) = (
        action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    presets = set(re.findall(r'"name": "([a-z]+)"', read("CMakePresets.json")))
    named = {word for word in re.findall(r"vllm-build ([a-z-]+)", code) if not word.startswith("-")}
    made = {
        word
        for line in re.findall(
            r"(?:^|[`(])(?:\$ )?(?:[A-Z_]+=\S+ )*make ((?:[a-z-]+ ?)+)", code, re.MULTILINE
        )
        for word in line.split()
    }
    assert named <= set(subcommands.choices)
    assert made <= targets
    assert set(re.findall(r"VARIANT=(\w+)", code)) <= set(variants.names(ROOT))
    assert set(re.findall(r"cmake (?:--build )?--preset (\w+)", code)) <= presets


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_are_accepted(page: str) -> None:
    """Command lines of `vllm-build` have all arguments that the command requires, and no others."""
    for line in command_lines(page):
        _, found, arguments = re.sub(r"\$\w+\(.*?\)", "", line).partition("vllm-build ")
        if found:
            assert cli.parser().parse_args(shlex.split(arguments)).command


@pytest.mark.parametrize("page", PAGES)
def test_options_exist(page: str) -> None:
    """Options have their full names, also in synopses such as `vllm-build plan [--device D]`."""
    (subcommands,) = (
        action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    unknown = [
        (command, option)
        for text in [*_SPAN.findall(_FENCE.sub("", read(page))), *command_lines(page)]
        for command, rest in re.findall(r"vllm-build ([a-z-]+)(.*)", text)
        for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", rest)
        if option not in options(subcommands.choices[command])
    ]
    assert unknown == []


def options(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a command and of its subcommands."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for child in action.choices.values() for option in options(child)}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_constants_are_where_the_page_says(page: str) -> None:
    """As in "`TESTS` in `tests/kernels/emulate.py`"."""
    named = re.findall(r"`([A-Z_]{4,})`,?\s+in\s+`([\w./-]+\.\w+)`", read(page))
    assert [
        (name, file)
        for name, file in named
        if not re.search(rf"^{name}\b", read(file), re.MULTILINE)
    ] == []


def test_messages_that_are_explained_exist() -> None:
    """Values in a message, such as `_C`, are fields in the code."""
    page = read("docs/install.md")
    table = page[page.index("## When it does not work") : page.index("## Variables at run time")]
    quoted = [
        span
        for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
        for span in _SPAN.findall(row)
    ]
    texts = [text for path in (ROOT / "vllm").rglob("*.py") for text in literals(path)]
    assert len(quoted) > 4
    for message in quoted:
        for part in re.split(r"…|\b_C\b(?:::)?|vllm-kernels|[0-9.]+", message):
            assert any(part in text for text in texts), message


def literals(path: Path) -> list[str]:
    """The strings of a module, with NUL for each field."""
    return [
        "".join(
            str(part.value) if isinstance(part, ast.Constant) else "\0"
            for part in (node.values if isinstance(node, ast.JoinedStr) else [node])
        )
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def test_architecture_answers_four_questions() -> None:
    """The questions of a newcomer.

    Where is an op's schema? Where are the CUDA architectures listed? Which module decides the
    number of jobs? How is a toolchain package added?
    """
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


def test_architecture_shows_the_tree() -> None:
    """The listing has all folders of the first level that are not hidden, and no others."""
    page = read("docs/architecture.md")
    (listing,) = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown = {name.partition("/")[0] for name in re.findall(r"^(\w[\w/]*)/ ", listing, re.MULTILINE)}
    assert shown == {folder for folder in _FOLDERS if not folder.startswith(".")}


def test_the_readers_first_page_names_every_page() -> None:
    """The contents of the site list every page; readers cannot find a page that is not listed."""
    index = read("docs/index.md")
    listed = set(re.findall(r"^(?:.*<)?([\w./-]+)>?$", index, re.MULTILINE))
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/index.md":
            assert page.removeprefix("docs/").removesuffix(".md") in listed
