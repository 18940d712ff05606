# SPDX-License-Identifier: Apache-2.0
"""An undamaged environment is reused, and a damaged one is created again."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from conda_files import make_channel, make_package

from vllm_build.conda import package_channel, package_job, package_request, recipe_outputs, variants
from vllm_build.conda.environments import conda_environment, intact
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIBRARY = "lib/python3.11/site-packages/vllm/_C.abi3.so"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder with our packages, a dependency, and interpreters."""
    kernels = make_package(
        tmp_path / "made",
        "vllm-kernels",
        {LIBRARY: "kernels", "share/__pycache__/x.cpython-311.pyc": "x"},
        depends=["torch", "python >=3.10"],
    )
    torch = make_package(tmp_path / "made", "torch", {"lib/libtorch.so": "torch"})
    pythons = [
        make_package(tmp_path / "made", "python", {"bin/python": version}, version=version)
        for version in ("3.10.9", "3.11.7", "3.13.5")
    ]
    package_job.claim_output(tmp_path / "output")
    make_channel(tmp_path / "output", kernels, torch, *pythons)
    return tmp_path / "output"


@pytest.fixture
def install(root: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The installation step of ``vllm-build package``; returns its description."""
    monkeypatch.setattr(package_channel, "url", lambda *_: output.as_uri())
    request = package_request.Request(
        root,
        variants.load(root, "cpu"),
        package_channel.LOCAL,
        output,
        Settings.from_environ(os.environ),
    )
    built = (recipe_outputs.Output("vllm-kernels", "1.0", "h0_0", noarch=True, run=()),)
    return lambda: package_job._install(request, built)


def test_the_interpreter_is_the_variants_and_not_the_newest(
    output: Path, install: Callable[[], str]
) -> None:
    install()
    assert (output / "env-cpu" / "bin" / "python").read_text(encoding="utf-8") == "3.11.7"


def removed(path: Path) -> None:
    path.unlink()


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((LIBRARY, how) for how in (removed, shortened, changed, linked, replaced_by_a_folder)),
        *(("lib/libtorch.so", how) for how in (removed, shortened, linked)),
        *(("conda-meta/vllm-kernels-1.0-h0_0.json", how) for how in (removed, shortened)),
        *(
            ("conda-meta/torch-1.0-h0_0.json", how)
            for how in (removed, shortened, replaced_by_a_folder)
        ),
    ],
)
def test_a_damaged_prefix_is_made_anew(
    output: Path, install: Callable[[], str], name: str, how: Callable[[Path], None]
) -> None:
    assert install() == "created"
    assert install() == "reused"
    how(output / "env-cpu" / name)
    assert "damaged" in install()
    assert (output / "env-cpu" / LIBRARY).read_text(encoding="utf-8") == "kernels"
    assert list(intact.damages(output / "env-cpu", ["vllm-kernels"])) == []
    assert install() == "reused"


def test_a_prefix_that_is_a_link_is_not_followed(
    tmp_path: Path, output: Path, install: Callable[[], str]
) -> None:
    install()
    (output / "env-cpu").rename(tmp_path / "elsewhere")
    (output / "env-cpu").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is a link"):
        install()
    assert (tmp_path / "elsewhere" / LIBRARY).is_file()


def test_what_an_environment_of_an_earlier_version_lacks_is_no_damage(
    output: Path, install: Callable[[], str]
) -> None:
    install()
    (output / "env-cpu" / intact.MARKER).unlink()
    assert install() == "reused"


def test_byte_code_that_an_interpreter_wrote_again_is_no_damage(
    output: Path, install: Callable[[], str]
) -> None:
    install()
    for path in (output / "env-cpu").rglob("*.pyc"):
        path.unlink()
        path.write_bytes(b"newer")
    assert list((output / "env-cpu").rglob("*.pyc"))
    assert install() == "reused"


def test_links_and_folders_of_packages(tmp_path: Path, output: Path) -> None:
    prefix = tmp_path / "env"
    conda_environment.create(prefix, ["torch"], [output.as_uri()])
    record = prefix / "conda-meta" / "torch-1.0-h0_0.json"
    document = json.loads(record.read_text(encoding="utf-8"))
    (prefix / "link").symlink_to("nowhere")
    (prefix / "folder").mkdir()
    document["paths_data"]["paths"] += [
        {"_path": "link", "path_type": "softlink", "sha256": "0" * 64, "size_in_bytes": 5},
        {"_path": "folder", "path_type": "directory"},
    ]
    record.write_text(json.dumps(document), encoding="utf-8")
    assert list(intact.damages(prefix, ["torch"])) == []
    (prefix / "link").unlink()
    (prefix / "folder").rmdir()
    (prefix / "link").mkdir()
    (prefix / "folder").symlink_to("nowhere")
    assert list(intact.damages(prefix, [])) == ["link is not a link", "folder is not a folder"]
    assert next(intact.damages(prefix, ["vllm"])) == "vllm is not installed"
