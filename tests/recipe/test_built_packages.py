# SPDX-License-Identifier: Apache-2.0
"""The CPU packages, built by the command that users type, and checked."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from package_runs import (  # noqa: F401 -- fixtures
    ROOT,
    Done,
    built_fixture,
    loud_fixture,
    output_fixture,
    request_fixture,
)

from vllm_build.checks import library_audit
from vllm_build.conda import package_checks, package_request
from vllm_build.conda.environments import conda_environment
from vllm_build.digests import recipe_stamp, tree_digests
from vllm_build.engine import engine_source
from vllm_build.project import distribution_version
from vllm_build.util.files import sha256_of

if TYPE_CHECKING:
    from vllm_build.util.console import Console

pytestmark = pytest.mark.slow


def test_packages_environment_and_install_line(built: Done) -> None:
    names = [Path(p["path"]).name for p in built.result["packages"]]
    assert [re.sub(r"-.*", "", name.replace("vllm-kernels", "vllm_kernels")) for name in names] == [
        "vllm_kernels",
        "vllm",
    ]
    for entry in built.result["packages"]:
        assert sha256_of(Path(entry["path"])) == entry["sha256"]
    assert (Path(built.result["prefix"]) / "bin" / "python").exists()
    assert built.result["install"].startswith("conda install --override-channels -c file:")
    assert "all operators agree with torch" in built.log
    assert {"toolchain channel", "plan", "install in a clean prefix", "run"} <= set(
        built.result["seconds"]
    )


@pytest.mark.parametrize("interpreter", package_checks.INTERPRETERS, ids=lambda i: i.name)
def test_one_binary_for_every_interpreter(
    interpreter: package_checks.Interpreter, request_: package_request.Request, loud: Console
) -> None:
    said = "\n".join(package_checks.compute(request_, interpreter, loud))
    assert f"Python {interpreter.name.removesuffix('t')}." in said
    assert said.startswith("free-threaded") == interpreter.name.endswith("t")
    assert said.count(": ok") == 10
    assert "WRONG" not in said


def test_audits_find_nothing(built: Done, request_: package_request.Request, loud: Console) -> None:
    findings = package_checks.audits(request_, Path(built.result["prefix"]), loud)
    assert {finding.check for finding in findings} == {"abi3audit", "torch-abi-audit", "glibc"}
    assert all(finding.good for finding in findings)


def test_every_place_says_the_same_version_and_digests(built: Done) -> None:
    prefix, stamps = Path(built.result["prefix"]), recipe_stamp.values(ROOT)
    (site,) = prefix.glob("lib/python*/site-packages")
    metas = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in prefix.glob("conda-meta/vllm*.json")
    ]
    info = json.loads(
        (site / "vllm" / "_build_info" / "vllm-kernels.json").read_text(encoding="utf-8")
    )
    (metadata,) = site.glob("vllm-*.dist-info/METADATA")
    said = conda_environment.run_in(
        prefix,
        ["python", "-c", "import vllm; print(vllm.__version__)"],
        cwd=prefix,
        inherited=os.environ,
    ).strip()
    wheel = re.search(r"^Version: (.+)$", metadata.read_text(encoding="utf-8"), re.MULTILINE)
    assert wheel is not None
    engine = {
        *(meta["version"] for meta in metas if meta["name"] == "vllm"),
        wheel[1],
        said,
        stamps["engine_version"],
    }
    assert engine == {engine_source.locked(ROOT).version}
    kernels = {
        *(meta["version"] for meta in metas if meta["name"] != "vllm"),
        info["version"],
        distribution_version.base_version(ROOT),
        stamps["vllm_version"],
    }
    assert kernels == {stamps["vllm_version"]}
    assert len(metas) == 2
    assert info["kernel_digest"] == tree_digests.kernel_digest(ROOT, "vllm-kernels")
    for meta in metas:
        assert f"_k{stamps['kernels_digest']}_" in meta["build"]
        assert info["kernel_digest"].startswith(stamps["kernels_digest"])


def test_the_channels_compiler_built_it(built: Done) -> None:
    prefix = Path(built.result["prefix"])
    (info_file,) = prefix.glob("lib/python*/site-packages/vllm/_build_info/vllm-kernels.json")
    info = json.loads(info_file.read_text(encoding="utf-8"))
    assert info["compiler"] == {"id": "GNU", "version": "12.2.0"}
    assert info["kernel_digest"][:12] in built.kernels
    for library in package_checks.libraries(prefix):
        assert "GCC: (Debian 12.2.0" in library_audit.compiler_comment(library)
    if not built.result["reused"]:
        assert re.search(r"x86_64-conda-linux-gnu-g\+\+: \$BUILD_PREFIX/bin/", built.log), (
            "the build script did not name the channel's compiler"
        )
