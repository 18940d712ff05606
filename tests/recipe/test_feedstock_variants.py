# SPDX-License-Identifier: Apache-2.0
"""Files of a feedstock's ``.ci_support`` folder as variants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllm_build.architectures import gpu_targets
from vllm_build.conda import recipe_outputs, variants
from vllm_build.digests import recipe_stamp
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


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
        tmp_path / "linux_64_c_compiler_version14c_stdlib_version2.28"
        "cuda_compiler_versionNonepython3.12.____cpython.yaml"
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
