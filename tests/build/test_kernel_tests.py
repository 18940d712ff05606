# SPDX-License-Identifier: Apache-2.0
"""Files of tests/kernels that need another device are skipped, with a reason, and not imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_build.util import paths

ROOT = paths.source_root()
FOLDER = ROOT / "tests" / "kernels"
#: Replaces torch, which is not installed here: every attribute exists.
TORCH = """
class Anything:
    def __call__(self, *arguments, **options): return self
    def __getattr__(self, name): return self
    def __hash__(self): return id(self)
def __getattr__(name): return Anything()
"""
GPU, EITHER, EMULATION = (
    "needs a GPU: ",
    "needs a GPU or its emulation: ",
    "needs a GPU's emulation: ",
)
#: File -> beginning of the reasons why it is skipped.
BOTH = (
    "bench_cases",
    "cache_gpu",
    "flashmla",
    "flashmla_arguments",
    "indexer_cache",
    "moe_gpu",
    "norm_block_quant",
    "scaled_mm",
)
ON_GPU = dict.fromkeys(
    (
        "cumem",
        "flash_attn",
        "flash_attn_arguments",
        "flash_attn_caches",
        "flash_attn_schedule",
    ),
    GPU,
)
EMULATED = dict.fromkeys(
    (
        "custom_all_reduce",
        "hopper_emulation",
        "rocm_attention",
        "rocm_attention_arguments",
        "rocm_gemm",
        "rocm_gemm_arguments",
        "rocm_gemm_quantised",
        "wave_emulation",
    ),
    EMULATION,
)


def run(tmp_path: Path, device: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest as ``vllm_build.conda.package_checks.installed_tests`` calls it."""
    (tmp_path / "torch.py").write_text(TORCH, encoding="utf-8")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-c",
        str(ROOT / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        "-q",
        "-rs",
    ]
    command += ["--rootdir", str(FOLDER), "--confcutdir", str(FOLDER), *arguments]
    env = {
        **os.environ,
        "KERNEL_TEST_DEVICE": device,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    return subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("device", "skipped"),
    [
        ("cpu", {**dict.fromkeys(BOTH, EITHER), **ON_GPU, **EMULATED}),
        ("emulated", ON_GPU),
        ("cuda", EMULATED),
    ],
)
def test_files_for_other_devices_are_visible_skips(
    device: str, skipped: dict[str, str], tmp_path: Path
) -> None:
    files = [str(FOLDER / f"test_{name}.py") for name in skipped]
    assert all(Path(file).is_file() for file in files)
    done = run(tmp_path, device, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{len(skipped)} skipped in ")
    assert (
        dict(
            re.findall(
                r"^SKIPPED \[1\] (?:\S*/)?test_(\w+)\.py: ([^:]+: )", done.stdout, re.MULTILINE
            )
        )
        == skipped
    )


def test_other_files_are_collected_as_usual(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "cpu",
        "--collect-only",
        str(FOLDER / "test_registration.py"),
        str(FOLDER / "test_cumem.py"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [line.partition("::") for line in done.stdout.splitlines() if "::" in line]
    assert ("test_registration.py", "::", "test_instruction_set_has_a_name") in found
    assert [test for file, _, test in found if file == "test_cumem.py"] == ["whole file"]


def test_no_file_vanishes() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("conftest.py")]
    assert len(sources) > 3
    assert not [
        source
        for source in sources
        if re.search(r"^\s*collect_ignore", source, re.MULTILINE)
        or "pytest_ignore_collect" in source
    ]
