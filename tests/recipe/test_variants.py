# SPDX-License-Identifier: Apache-2.0
"""Variant files: values that are read, and mistakes that are refused with their line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.architectures import gpu_targets
from vllm_build.conda import variants
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, root: Path) -> Path:
    (tmp_path / "variants").mkdir()
    text = (root / "variants" / "cpu.yaml").read_text(encoding="utf-8")
    (tmp_path / "variants" / "cpu.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def edit(tree: Path, old: str, new: str) -> None:
    path = tree / "variants" / "cpu.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_every_variant_of_the_tree_loads(root: Path) -> None:
    assert "cpu" in variants.names(root)
    for name in variants.names(root):
        assert variants.load(root, name).name == name


def test_the_rocm_variant(root: Path) -> None:
    variant = variants.load(root, "rocm")
    assert (variant.accelerator, str(variant.toolkit_version)) == ("rocm", "7.2")
    assert variant.values["hip_compiler_version"] == variant.values["rocm_version"]
    listed = gpu_targets.parse("rocm", variant.values["rocm_arch_list"], "rocm")
    assert listed == gpu_targets.default("rocm", variant.toolkit_version)


@pytest.mark.parametrize("name", ["cuda12", "cuda124", "cuda13"])
def test_architectures_of_a_variant_are_the_projects_list(root: Path, name: str) -> None:
    variant = variants.load(root, name)
    listed = gpu_targets.parse("cuda", variant.values["cuda_arch_list"], name)
    expected = gpu_targets.default("cuda", variant.toolkit_version)
    assert [entry.removesuffix("+PTX") for entry in listed] == [
        entry.removesuffix("+PTX") for entry in expected
    ]
    # PTX is for future chips; PTX with instructions of one chip would not serve them.
    assert [entry for entry in listed if entry.endswith("+PTX") and "a+" not in entry]


def test_a_variant_without_a_toolkit(root: Path) -> None:
    assert variants.load(root, "cpu").toolkit_version is None


def test_keys_of_cuda_are_named_where_they_are_missing(root: Path, tmp_path: Path) -> None:
    text = (root / "variants" / "cuda13.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace('cuda_compiler_version:\n  - "13.0"\n', ""), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml lacks cuda_compiler_version\n"):
        variants.load(root, str(path))


def test_a_path_is_a_variant_too(root: Path) -> None:
    path = root / "variants" / "cpu.yaml"
    assert variants.load(root, str(path)) == variants.load(root, "cpu")


def test_unknown_variant_lists_the_known(tree: Path) -> None:
    with pytest.raises(ConfigurationError, match="no variant 'cuda99'") as caught:
        variants.load(tree, "cuda99")
    assert "cpu" in (caught.value.expected or "")


def test_missing_keys_are_named(tree: Path) -> None:
    edit(tree, 'c_stdlib:\n  - "sysroot"\n', "")
    with pytest.raises(ConfigurationError, match=r"cpu\.yaml lacks c_stdlib\n"):
        variants.load(tree, "cpu")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('- "2.31"', '- "2..31"', "not a version"),
        ('- "3.11"', "- 3.11", "float"),
        ('- "12"', '- "12"\n  - "13"', "exactly one|has \\["),
        ('accelerator:\n  - "cpu"', 'accelerator: "cpu"', "accelerator"),
        ("accelerator:", "accelerator: [", "not YAML"),
    ],
)
def test_malformed_file_is_refused(tree: Path, old: str, new: str, said: str) -> None:
    edit(tree, old, new)
    with pytest.raises(ConfigurationError, match=said) as caught:
        variants.load(tree, "cpu")
    assert "cpu.yaml" in caught.value.message


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("variant") / "x.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigurationError):
        variants.load(path.parent, str(path))


@pytest.mark.parametrize(
    ("old", "new", "said", "remedy"),
    [
        (
            "accelerator:",
            "acclerator:",
            r":4: nothing reads the key 'acclerator'",
            "write accelerator",
        ),
        ('- "cpu"', '- "CPU"', ":4: accelerator is 'CPU'", "write cpu"),
        ('- "cpu"', '- "nvidia"', ":4: accelerator is 'nvidia'", "write cuda"),
        ('- "cpu"', '- "abacus"', ":4: accelerator is 'abacus'", None),
        ('- "3.11"', '- "3.9"', "python is 3.9, and packages are for Python >= 3.10", None),
        (
            '- "3.11"',
            "- 3.10",
            "python has the value 3.10 without quotes, which YAML reads as type float",
            'write python: ["3.10"]',
        ),
        ('- "3.11"', "- yes", "python is 'yes', which is not a version", None),
        (
            '- "3.11"',
            "- true",
            "python has the value true without quotes, which YAML reads as type bool",
            'write python: ["true"]',
        ),
        ('- "3.11"', '- ""', "python has an empty value", None),
        ('  - "3.11"', "  []", "python has no value", 'write python: ["…"]'),
        ("channel_digest:", "1:", "nothing reads the key '1'", "leave it out"),
        ("channel_digest:", "? [a, b]\n:", "has a key that is not a word", None),
        ("channel_digest:", "python:", "repeats the key python of line", None),
        ("channel_digest:", "zlib:", "nothing reads the key 'zlib'", "leave it out"),
    ],
)
def test_every_fault_has_a_line_and_a_remedy(
    tree: Path, old: str, new: str, said: str, remedy: str | None
) -> None:
    edit(tree, old, new)
    with pytest.raises(ConfigurationError) as caught:
        variants.load(tree, "cpu")
    assert re.match(r".*cpu\.yaml:\d+", caught.value.message)
    assert said in caught.value.message
    assert caught.value.remedy == (remedy or ConfigurationError.usual_remedy)


def test_anchors_are_read(tree: Path) -> None:
    edit(tree, 'c_compiler_version:\n  - "12"\n', 'c_compiler_version: &gcc\n  - "12"\n')
    edit(tree, 'cxx_compiler_version:\n  - "12"\n', "cxx_compiler_version: *gcc\n")
    assert variants.load(tree, "cpu").values["cxx_compiler_version"] == "12"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            'accelerator: ["cpu"]\n# caf\xe9\n'.encode("latin-1"),
            r"x.yaml:2 is not UTF-8: byte 0xe9",
        ),
        ('accelerator: ["cpu"]'.encode("utf-16"), "x.yaml is UTF-16"),
        ('accelerator: ["cpu"]'.encode("utf-32"), "x.yaml is UTF-32"),
        (b"", "has no keys"),
        (b"# nothing\n", "has no keys"),
        (b"- a\n- b\n", "has no keys"),
        (b"{}", "has no keys"),
        (b"a: [\n", "is not YAML"),
        (b"a: *nowhere\n", "is not YAML"),
        (b"a: [b]\n---\nc: [d]\n", "is not YAML"),
        (b"a: \x00\n", "is not YAML"),
        (b"#" * (1 << 20) + b"##", "more than"),
        (b"[" * 100000, "is not YAML"),
    ],
)
def test_bytes_that_are_no_variant(root: Path, tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=said):
        variants.load(root, str(path))


def test_a_byte_order_mark_is_no_part_of_a_key(tree: Path) -> None:
    path = tree / "variants" / "cpu.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert variants.load(tree, "cpu").accelerator == "cpu"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('- "full"', '- "bogus"'),
        ('- "full"', '- "Full"'),
        ('- "13.0"', '- "11.7"'),
        ('- "7.5;', '- "8.1;'),
    ],
)
def test_keys_of_cuda_are_checked(root: Path, tmp_path: Path, old: str, new: str) -> None:
    text = (root / "variants" / "cuda13.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(
        ConfigurationError, match=r"mine\.yaml(:\d+: |.*\(line \d+, cuda_arch_list\))"
    ):
        variants.load(root, str(path))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('rocm_version:\n  - "7.2"\n', "", "lacks rocm_version"),
        ('rocm_version:\n  - "7.2"', 'rocm_version:\n  - "5.6"', "expected: ROCm >= 5.7"),
        ("gfx90a;", "mi250;", "write gfx90a"),
        ("gfx90a;", "gfx11-generic;", r"'gfx11-generic' is not an AMD GPU architecture"),
        ("gfx90a;", "gfx90a:xnack-;gfx90a;", "cannot be combined in one binary"),
    ],
)
def test_keys_of_rocm_are_checked(
    root: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = (root / "variants" / "rocm.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said):
        variants.load(root, str(path))


@pytest.mark.parametrize(
    ("key", "value"),
    [("flash_attention_set", "full"), ("kernels", "engine"), ("kernel_set", "full")],
)
def test_a_choice_of_kernels_is_due_for_cuda(
    root: Path, tmp_path: Path, key: str, value: str
) -> None:
    text = (root / "variants" / "cuda13.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(f'{key}:\n  - "{value}"\n', ""), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=rf"mine\.yaml lacks {key}\n"):
        variants.load(root, str(path))


def test_keys_that_pin_are_packages_that_the_recipe_asks_for_by_name(root: Path) -> None:
    recipes = "".join(
        path.read_text(encoding="utf-8") for path in (root / "recipe").glob("*/recipe.yaml")
    )
    for name in variants.PINS:
        assert re.search(rf"^\s+(- |then: ){name}$", recipes, re.MULTILINE), name
