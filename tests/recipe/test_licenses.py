# SPDX-License-Identifier: Apache-2.0
"""License texts from packages whose code is linked: recipe/copy_licenses.py, and the recipes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from vllm_build.util import paths

if TYPE_CHECKING:
    from pathlib import Path

ROOT = paths.source_root()
PATTERN = "cuda-cudart-static_*"


def install(prefix: Path, name: str, texts: dict[str, str], **record: Any) -> None:
    """Write the record of a package that is unpacked in a cache and linked into the prefix."""
    unpacked = prefix.parent / "pkgs" / name
    for path, text in texts.items():
        (unpacked / "info" / "licenses" / path).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / "info" / "licenses" / path).write_text(text, encoding="utf-8")
    (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
    document = {
        "name": name,
        "version": "13.0.96",
        "extracted_package_dir": str(unpacked),
        "link": {"source": str(unpacked)},
        **record,
    }
    (prefix / "conda-meta" / f"{name}-13.0.96-0.json").write_text(
        json.dumps(document), encoding="utf-8"
    )


def copy(prefix: Path, target: Path, pattern: str = PATTERN) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ROOT / "recipe" / "copy_licenses.py"),
        str(prefix),
        pattern,
        str(target),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("missing", [None, "extracted_package_dir", "link"])
def test_the_texts_of_one_package(tmp_path: Path, missing: str | None) -> None:
    prefix, target = tmp_path / "prefix", tmp_path / "work" / "licenses"
    install(
        prefix,
        "cuda-cudart-static_linux-64",
        {"licenses/runtime.txt": "agreement", "NOTICE": "notice"},
        **({missing: None} if missing else {}),
    )
    install(prefix, "cuda-cudart-static", {"LICENSE": "another package's"})
    done = copy(prefix, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name: path.read_text(encoding="utf-8") for path in target.iterdir()} == {
        "runtime.txt": "agreement",
        "NOTICE": "notice",
    }


def test_what_is_missing_stops_the_build(tmp_path: Path) -> None:
    prefix, target = tmp_path / "prefix", tmp_path / "licenses"
    install(prefix, "cuda-cudart-static_linux-64", {})
    done = copy(prefix, target)
    assert (
        done.returncode,
        "cuda-cudart-static_linux-64 13.0.96 has no license text in" in done.stderr,
    ) == (1, True)
    done = copy(prefix, target, "cuda-nvrtc_*")
    assert (done.returncode, "has none for cuda-nvrtc_*" in done.stderr) == (1, True)
    install(prefix, "cuda-cudart-static_linux-aarch64", {"LICENSE": "two packages"})
    done = copy(prefix, target)
    assert (done.returncode, "expected: one package" in done.stderr) == (1, True)
    install(prefix, "twice", {"a/LICENSE": "one", "b/LICENSE": "another"})
    done = copy(prefix, target, "twice")
    assert (done.returncode, "two license texts called LICENSE" in done.stderr) == (1, True)


def test_every_output_with_the_runtime_names_its_text() -> None:
    recipes = [
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (ROOT / "recipe").glob("*/recipe.yaml")
    ]
    outputs = {recipe["package"]["name"]: recipe["about"] for recipe in recipes}
    linked = {
        name: about for name, about in outputs.items() if "LicenseRef-NVIDIA" in about["license"]
    }
    assert set(linked) == {
        *("vllm-kernels", "vllm-engine-kernels", "vllm-flash-attn", "vllm-flashmla")
    }
    for name, about in linked.items():
        always = [entry for entry in about["license_file"] if isinstance(entry, str)]
        conditional = [
            entry["then"]
            for entry in about["license_file"]
            if isinstance(entry, dict) and entry["if"] == "cuda"
        ]
        for_cuda = [
            text for entry in conditional for text in ([entry] if isinstance(entry, str) else entry)
        ]
        assert "licenses/cuda-cudart-static/*" in (*always, *for_cuda), name
    script = (ROOT / "recipe" / "build.sh").read_text(encoding="utf-8")
    assert f"'{PATTERN}' \"$SRC_DIR/licenses/cuda-cudart-static\"" in script
