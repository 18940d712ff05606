# SPDX-License-Identifier: Apache-2.0
"""ROCm packages, built by the users' command, and checked without an AMD GPU.

``make test`` compiles fewer kernels for one architecture: ``tests/build/pip/test_pip_rocm.py``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_engine
import pytest
import upstream_schemas
from code_objects import Code, Tools
from full_suite import full_only
from package_runs import environ

from vllm_build.architectures import gpu_targets
from vllm_build.checks import elf
from vllm_build.conda import package_channel, package_checks, package_request, variants
from vllm_build.conda.environments import conda_environment
from vllm_build.kernels import op_table
from vllm_build.settings.build_settings import Settings
from vllm_build.toolchain import channel_build
from vllm_build.util import paths
from vllm_build.util.console import Console

pytestmark = [pytest.mark.slow, full_only]
ROOT = paths.source_root()
ARCHITECTURES = gpu_targets.parse("rocm", gpu_targets.DEFAULTS["rocm"], "the default list")
FAKES = ROOT / "tests" / "data" / "fake_hip"
#: Libraries that every machine with a torch has.
GUARANTEED = re.compile(
    r"lib(torch_cpu|torch|c10)\.so$|lib(stdc\+\+|gcc_s|c|m|dl|pthread)\.so\.[0-9]+$|ld-linux-x86-64\.so\.2$"
)
#: Kernels that may use scratch memory, by a part of their names, and why.
WITH_SCRATCH: dict[str, str] = {}


@dataclass(frozen=True)
class Built:
    """The packages of ``vllm-build package rocm``, and the clean prefix in which it ran them."""

    request: package_request.Request
    result: dict[str, Any]
    log: str

    @property
    def extensions(self) -> list[dict[str, Any]]:
        (path,) = self.request.prefix.glob(
            "lib/python*/site-packages/vllm/_build_info/vllm-kernels.json"
        )
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["extensions"]
        return found

    def python(self, script: str, *arguments: str, **extra: str) -> str:
        return conda_environment.run_in(
            self.request.prefix,
            ["python", "-c", script, *arguments],
            cwd=self.request.prefix,
            inherited=os.environ,
            extra=extra,
        )


@pytest.fixture(scope="module")
def built() -> Built:
    env = environ(ROOT) | {"PYTORCH_ROCM_ARCH": ";".join(ARCHITECTURES)}
    output = ROOT / "output" / "rocm-all"
    command = [sys.executable, "-m", "vllm_build", "package", "rocm", "--json"]
    done = subprocess.run(
        [*command, "--output", str(output)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    request = package_request.Request(
        ROOT,
        variants.load(ROOT, "rocm"),
        package_channel.LOCAL,
        output,
        Settings.from_environ({**os.environ, "PYTORCH_ROCM_ARCH": ";".join(ARCHITECTURES)}),
    )
    return Built(request, json.loads(done.stdout), done.stderr)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """LLVM's tools and a C compiler, from the toolchain channel."""
    report = channel_build.ensure(ROOT, Console(), ["clang", "gxx_linux-64"], inherited=os.environ)
    prefix = tmp_path_factory.mktemp("rocm") / "tools"
    specs = ["clang-tools", "llvm-tools", "gcc_linux-64", "sysroot_linux-64"]
    conda_environment.create(prefix, specs, [report.url])
    return Tools(prefix)


@pytest.fixture(scope="module")
def codes(
    built: Built, tools: Tools, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Code]]:
    """The code objects of each library, by its name."""
    folder = tmp_path_factory.mktemp("codes")
    return {
        library.name.partition(".")[0]: tools.unpack(library, folder / library.name)
        for library in package_checks.libraries(built.request.prefix)
    }


def test_packages_install_beside_a_torch_for_the_cpu_and_import(built: Built) -> None:
    names = sorted(entry["path"].rpartition("/")[2] for entry in built.result["packages"])
    assert re.fullmatch(r"vllm-[\d.]+-py_s\w+\.conda", names[0])
    assert re.fullmatch(r"vllm-kernels-[\d.]+-rocm72_abi3_k\w+\.conda", names[1])
    assert len(names) == 2
    planned = package_request.planned(built.request).extensions
    files = sorted(extension["file"] for extension in built.extensions)
    assert files == sorted(extension.output_file(".abi3.so") for extension in planned)
    assert {f"vllm/{name}.abi3.so" for name in ("_C", "_moe_C", "_rocm_C")} <= set(files)
    assert re.search(
        r"operators are registered for \w+; none was run, because torch \S+ sees", built.log
    )
    assert "CUDA driver" not in built.log
    assert "no effect on packages" not in built.log
    assert built.result["install"].endswith('"vllm-kernels=*=rocm*"')


def test_the_engine_reports_its_kernels_and_refuses_to_serve(built: Built, tmp_path: Path) -> None:
    gpu_engine.check_report(built.request.prefix, tmp_path, "rocm", ("vllm-kernels",))
    gpu_engine.check_refusal(built.request.prefix, tmp_path, "rocm")
    assert re.search(r"vllm [\d.]+ for rocm refuses to start here: .* sees no GPU", built.log)


def test_times_of_units_are_in_the_result(built: Built) -> None:
    """Packages that are reused have been compiled by another run, whose record is kept."""
    units = {unit["unit"].rpartition("/")[2] for unit in built.result["units"]}
    assert {"norm.cu.o", "rocm_attention.cu.o", "runtime_calls.cc.o"} <= units


def test_one_binary_for_every_interpreter(built: Built) -> None:
    package_checks.prepare(built.request, Console())
    for interpreter in package_checks.INTERPRETERS:
        said = "\n".join(package_checks.compute(built.request, interpreter, Console()))
        assert f"Python {interpreter.name.removesuffix('t')}." in said
        assert "refused" in said


def test_the_package_carries_the_licenses_of_what_it_contains(built: Built) -> None:
    (path,) = built.request.prefix.glob("conda-meta/vllm-kernels-*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    folder = Path(record["extracted_package_dir"], "info", "licenses")
    texts = [
        path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and "rocm-device-libs" in path.parts
    ]
    assert any("Advanced Micro Devices" in text for text in texts)


def test_audits_find_nothing(built: Built) -> None:
    findings = package_checks.audits(built.request, built.request.prefix, Console())
    assert {finding.check for finding in findings} >= {"glibc"}


def test_every_symbol_is_found_without_a_rocm(built: Built) -> None:
    libraries = package_checks.libraries(built.request.prefix)
    for library in libraries:
        strange = [name for name in elf.read(library).needed if not GUARANTEED.match(name)]
        assert strange == [], library.name
        # The linker resolves every function now, also those that are called later.
        script = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], os.RTLD_NOW); print('loaded')"
        assert built.python(script, str(library)).strip() == "loaded"


def test_every_listed_op_is_registered_and_nothing_else(built: Built) -> None:
    table = op_table.load(ROOT)
    kernels = {kernel for extension in built.extensions for kernel in extension["kernels"]}
    listed = sorted(
        {schema.partition("(")[0] for kernel in kernels for schema in table[kernel].get("CUDA", ())}
    )
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_ops; "
        "print(*sorted(test_ops.registered('CUDA')), sep='\\n')"
    )
    said = built.python(script, str(ROOT / "recipe" / "vllm"))
    assert said.split() == listed
    assert sum(name.startswith("_rocm_C::") for name in listed) == 6


def test_registered_schemas_are_upstreams(built: Built) -> None:
    script = (
        "import torch\n"
        "from vllm._kernels import loader\n"
        "spaces = {s for name in loader.load() for s in loader.LIBRARIES[name].namespaces}\n"
        "for name in torch._C._dispatch_get_all_op_names():\n"
        "    if name.partition('::')[0] in spaces:\n"
        "        for schema in torch._C._jit_get_schemas_for_operator(name):\n"
        "            print(schema)\n"
    )
    said = [upstream_schemas.spelled(line) for line in built.python(script).splitlines()]
    found = {line.partition("(")[0]: line for line in said if line.startswith("_")}
    upstream = upstream_schemas.load()
    compared = {name: schema for name, schema in found.items() if name in upstream}
    assert compared == {name: upstream[name] for name in compared}
    assert set(found) - set(compared) == upstream_schemas.OURS
    assert len(compared) >= 62


def test_code_for_exactly_the_planned_architectures(
    built: Built, codes: dict[str, list[Code]]
) -> None:
    for extension in package_request.planned(built.request).extensions:
        units = {source for kernel in extension.kernels for source in kernel.sources}
        gpu_units = [source for source in units if source.endswith(".cu")]
        found = Counter(code.target for code in codes[extension.module])
        assert set(found) == (set(ARCHITECTURES) if gpu_units else set()), extension.name
        # A unit without kernels has no code.
        assert all(0 < number <= len(gpu_units) for number in found.values()), found
        assert len(set(found.values())) <= 1, found


def test_waves_have_the_size_that_the_kernels_expect(codes: dict[str, list[Code]]) -> None:
    sizes = {
        (code.target, kernel.wave)
        for listed in codes.values()
        for code in listed
        for kernel in code.kernels
    }
    assert sizes == {(arch, 64 if arch.startswith("gfx9") else 32) for arch in ARCHITECTURES}


def test_no_kernel_uses_scratch_memory(codes: dict[str, list[Code]]) -> None:
    """Registers suffice. Scalar registers may be kept in lanes of a vector register."""
    kernels = [
        (code.target, kernel)
        for listed in codes.values()
        for code in listed
        for kernel in code.kernels
    ]
    assert len(kernels) > 500 * len(ARCHITECTURES)
    using = {
        f"{target}: {kernel.name}: {kernel.scratch} bytes, {kernel.spills} spilled registers"
        for target, kernel in kernels
        if (kernel.scratch or kernel.spills or kernel.stack)
        and not any(part in kernel.name for part in WITH_SCRATCH)
    }
    assert using == set()
    for part in WITH_SCRATCH:
        assert any(part in kernel.name and kernel.scratch for _, kernel in kernels), part


LAUNCH = """
import torch
from vllm._kernels import loader
loader.load()
key = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
x = torch.ones(3, 32)
calls = (
    (torch.ops._C.silu_and_mul, (torch.empty(3, 16), x)),
    (torch.ops._moe_C.moe_sum, (x.view(1, 3, 32), torch.empty(1, 32))),
)
for op, arguments in calls:
    call = op.default.redispatch
    for _ in range(2):
        try:
            call(key, *arguments)
        except RuntimeError as error:
            print(f"error: {error}")
"""


def test_a_gpu_that_the_library_has_no_code_for(
    built: Built, tools: Tools, codes: dict[str, list[Code]], tmp_path: Path
) -> None:
    """One error names the architectures, with a runtime and a torch for ROCm that are not real."""
    runtime = tools.link(FAKES / "no_kernels.c", tmp_path / "libamdhip64.so.7")
    torch = tools.link(FAKES / "torch_hip.c", tmp_path / "libtorch_hip.so")
    said = built.python(LAUNCH, LD_PRELOAD=f"{runtime}:{torch}").splitlines()
    names = ", ".join(ARCHITECTURES)
    for op in ("activate_and_mul", "moe_sum"):
        message = (
            f"error: {op}: no kernel image is available for execution on the device, expected one "
            f"that the kernel was compiled for: {names}"
        )
        assert said.count(message) == 2, said
    assert said.count("launch of a known kernel, stream 0x5000") == 4
    assert sum(line.startswith("error: ") for line in said) == 4, said
    # Each of the two libraries hands its code to the runtime once.
    bundles = [len({code.unit for code in codes[name]}) for name in ("_C", "_moe_C")]
    assert said.count("code registered: HIPF") == sum(bundles)


def test_a_process_without_a_hip_runtime(built: Built, tools: Tools, tmp_path: Path) -> None:
    torch = tools.link(FAKES / "torch_hip.c", tmp_path / "libtorch_hip.so")
    said = built.python(LAUNCH, LD_PRELOAD=str(torch)).splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 4
    for line in errors:
        assert "no HIP runtime is loaded in this process, expected libamdhip64.so" in line


def test_other_architectures_make_another_package(built: Built) -> None:
    other = dataclasses.replace(
        built.request, settings=Settings.from_environ({"PYTORCH_ROCM_ARCH": "gfx942"})
    )
    mine, others = (package_request.expected(r) for r in (built.request, other))
    assert {o.name for o in mine} == {o.name for o in others} == {"vllm", "vllm-kernels"}
    assert not {o.filename for o in mine if o.name == "vllm-kernels"} & {o.filename for o in others}
