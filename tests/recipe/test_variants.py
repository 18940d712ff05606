# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.architectures import gpu_targets
from vllm_build.conda import recipe_outputs, variants
from vllm_build.digests import recipe_stamp
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


@pytest.mark.parametrize("name", ["cuda12", "cuda124", "cuda13"])
def test_architectures_of_a_variant_are_the_projects_list(root: Path, name: str) -> None:
    variant = variants.load(root, name)
    listed = gpu_targets.parse("cuda", variant.values["cuda_arch_list"], name)
    expected = gpu_targets.default("cuda", variant.toolkit_version)
    assert [entry.removesuffix("+PTX") for entry in listed] == [
        entry.removesuffix("+PTX") for entry in expected
    ]
    # For chips that come later; PTX with one chip's own instructions would serve none of them.
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


SMITHY = """\
c_compiler:
- gcc
c_compiler_version:
- '{gcc}'
c_stdlib:
- sysroot
c_stdlib_version:
- '2.28'
cdt_name:
- alma8
channel_sources:
- conda-forge
channel_targets:
- conda-forge main
cuda_compiler:
- cuda-nvcc
cuda_compiler_version:
- {cuda}
cxx_compiler:
- gxx
cxx_compiler_version:
- '{gcc}'
docker_image:
- registry.invalid/builder:alma8
libtorch:
- '2.12'
numpy:
- '2.0'
- '2'
pin_run_as_build:
  python:
    min_pin: x.x
    max_pin: x.x
python:
- 3.12.* *_cpython
target_platform:
- {platform}
zip_keys:
- - c_compiler_version
  - cxx_compiler_version
- - python
  - numpy
"""


def smithy(
    tmp_path: Path, *, gcc: str = "14", cuda: str = "None", platform: str = "linux-64"
) -> Path:
    path = (
        tmp_path
        / "linux_64_c_compiler_version14c_stdlib_version2.28cuda_compiler_versionNonepython3.12.____cpython.yaml"
    )
    path.write_text(SMITHY.format(gcc=gcc, cuda=cuda, platform=platform), encoding="utf-8")
    return path


def test_a_feedstock_s_file_for_cpus(root: Path, tmp_path: Path) -> None:
    variant = variants.load(root, str(smithy(tmp_path)))
    assert variant.values == {
        "accelerator": "cpu",
        "c_compiler": "gcc",
        "c_compiler_version": "14",
        "cxx_compiler": "gxx",
        "cxx_compiler_version": "14",
        "c_stdlib": "sysroot",
        "c_stdlib_version": "2.28",
        "python": "3.12",
        "libtorch": "2.12",
        "channel_digest": "conda-forge",
    }
    assert variant.toolkit_version is None
    assert len(variant.name) <= 48
    ignored, assumed = variant.notes
    for key in (
        "cdt_name",
        "channel_sources",
        "channel_targets",
        "docker_image",
        "numpy",
        "pin_run_as_build",
    ):
        assert key in ignored
    assert "accelerator cpu" in assumed
    assert "channel_digest conda-forge" in assumed


def test_a_feedstock_s_file_for_cuda(root: Path, tmp_path: Path) -> None:
    variant = variants.load(root, str(smithy(tmp_path, cuda="'13.0'")))
    assert (variant.accelerator, str(variant.toolkit_version)) == ("cuda", "13.0")
    assert variant.values["cuda_arch_list"] == ";".join(
        gpu_targets.default("cuda", variant.toolkit_version)
    )
    assert variant.values["flash_attention_set"] == "full"
    assert {
        output.name for output in recipe_outputs.render(root, variant, recipe_stamp.values(root))
    } >= {
        "vllm",
        "vllm-kernels",
        "vllm-flash-attn",
    }


def test_what_the_file_pins_is_in_the_package_s_hash(root: Path, tmp_path: Path) -> None:
    path = smithy(tmp_path)
    text = path.read_text(encoding="utf-8")
    builds = set()
    for release in ("2.12", "2.13"):
        path.write_text(text.replace("- '2.12'", f"- '{release}'"), encoding="utf-8")
        outputs = recipe_outputs.render(
            root, variants.load(root, str(path)), recipe_stamp.values(root)
        )
        builds.add(next(output.build for output in outputs if output.name == "vllm-kernels"))
    assert len(builds) == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "- 3.12.* *_cpython\n",
            "- 3.12.* *_cpython\n- 3.13.* *_cp313\n",
            r"python has 2 values: 3.12.* *_cpython, 3.13.* *_cp313",
        ),
        ("- linux-64", "- osx-arm64", "target_platform is 'osx-arm64'"),
        ("- None", "- '11.7'", "CUDA 11.7 is too old"),
        ("- 3.12.* *_cpython", "- 3.9.* *_cpython", "python is 3.9"),
        ("c_stdlib:\n- sysroot\n", "", "lacks c_stdlib"),
    ],
)
def test_what_a_feedstock_s_file_cannot_mean(
    root: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = smithy(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        variants.load(root, str(path))
    assert said in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "said", "remedy"),
    [
        (
            "accelerator:",
            "acclerator:",
            r":3: nothing reads the key 'acclerator'",
            "write accelerator",
        ),
        ('- "cpu"', '- "CPU"', ":3: accelerator is 'CPU'", "write cpu"),
        ('- "cpu"', '- "nvidia"', ":3: accelerator is 'nvidia'", "write cuda"),
        ('- "cpu"', '- "abacus"', ":3: accelerator is 'abacus'", None),
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


def test_flash_attention_set_is_due_for_cuda(root: Path, tmp_path: Path) -> None:
    text = (root / "variants" / "cuda13.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace('flash_attention_set:\n  - "full"\n', ""), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml lacks flash_attention_set\n"):
        variants.load(root, str(path))


def test_keys_that_pin_are_packages_that_the_recipe_asks_for_by_name(root: Path) -> None:
    recipes = "".join(
        path.read_text(encoding="utf-8") for path in (root / "recipe").glob("*/recipe.yaml")
    )
    for name in variants.PINS:
        assert re.search(rf"^\s+(- |then: ){name}$", recipes, re.MULTILINE), name
