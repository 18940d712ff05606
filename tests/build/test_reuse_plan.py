# SPDX-License-Identifier: Apache-2.0
"""What is reused, compiled or refused; how files get into a tree; and the build command from settings to files."""

from __future__ import annotations

import json
import sysconfig
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fake_cmake import calls
from packaging.version import Version
from reuse_files import (
    DIGEST,
    KERNEL_DIGEST,
    LIBRARIES,
    MACHINE,
    OUTPUT,
    RECORD,
    Build,
    elf,
    snapshot,
    write_channel,
)
from reuse_server import serving
from setuptools import Distribution

from vllm_build import backend
from vllm_build.digests import tree_digests
from vllm_build.native import cmake_configure
from vllm_build.reuse import placement, preparation
from vllm_build.reuse.lookup import decisions, kernel_channel, offers
from vllm_build.reuse.net.reuse_cache import Cache
from vllm_build.reuse.net.reuse_context import Context
from vllm_build.reuse.net.transport import Transport
from vllm_build.reuse.records import fitness
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores import store_publish
from vllm_build.settings.build_settings import Settings
from vllm_build.target.device import Target
from vllm_build.target.torch_flavour import TorchFlavour
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError, FetchError
from vllm_build.util.files import sha256_of
from vllm_build.wheels import cmake_ext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OTHER = Build(
    {"vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so": elf(40)},
    {"build_digest": "ef" * 32},
    output="vllm-flash-attn",
)


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "user-cache"))
    context = Context(Cache(tmp_path / "cache"), Transport(timeout=0.5, attempts=2, pause=0.01))
    with context.cache.in_use():
        yield context


def store(ctx: Context, folder: Path, *builds: Build) -> str:
    for number, build in enumerate(builds):
        store_publish.publish(
            build.unpacked(folder.with_name(f"{folder.name}-built-{number}")), folder, ctx
        )
    return str(folder)


def decide(
    ctx: Context, *locations: str, partial: bool = False, wanted: tuple[Build, ...] = (Build(),)
) -> tuple[decisions.Decision, ...]:
    opened = [offers.recognise(ctx, location) for location in locations]
    try:
        return decisions.make(
            [build.wanted() for build in wanted], opened, MACHINE, partial=partial
        )
    finally:
        for source in opened:
            source.close()


def test_the_first_source_that_fits(ctx: Context, tmp_path: Path) -> None:
    empty, full = store(ctx, tmp_path / "empty", OTHER), store(ctx, tmp_path / "full", Build())
    (decision,) = decide(ctx, empty, full, full)
    assert (decision.action, decision.where) == (decisions.REUSE, full)
    assert decision.record is not None
    assert decision.record.digest == DIGEST


def test_nothing_anywhere(ctx: Context, tmp_path: Path) -> None:
    empty = store(ctx, tmp_path / "empty", Build(facts={"build_digest": "0" * 64}))
    with pytest.raises(RefusedError, match="no build of vllm-kernels") as caught:
        decide(ctx, empty)
    assert caught.value.unfit
    assert "VLLM_PRECOMPILED_PARTIAL=1" in str(caught.value)
    (decision,) = decide(ctx, empty, partial=True)
    assert (decision.action, decision.offer) == (decisions.COMPILE, None)
    assert "no build" in decision.why


def test_some_reused_some_compiled(ctx: Context, tmp_path: Path) -> None:
    there = store(ctx, tmp_path / "there", OTHER)
    found = decide(ctx, there, partial=True, wanted=(Build(), OTHER))
    assert [decision.action for decision in found] == [decisions.COMPILE, decisions.REUSE]


def test_the_reason_against_the_first_that_does_not_fit(ctx: Context, tmp_path: Path) -> None:
    """A store with a build for another machine, and one with none at all."""
    other = store(ctx, tmp_path / "other", Build(facts={"platform": "linux-s390x"}))
    with pytest.raises(RefusedError) as caught:
        decide(ctx, store(ctx, tmp_path / "empty", OTHER), other)
    assert caught.value.check == "platform"


def test_a_store_with_builds_for_several_machines(ctx: Context, tmp_path: Path) -> None:
    both = store(ctx, tmp_path / "both", Build(facts={"platform": "linux-s390x"}), Build())
    assert decide(ctx, both)[0].action == decisions.REUSE


def test_a_source_that_cannot_be_asked(ctx: Context, tmp_path: Path) -> None:
    full = store(ctx, tmp_path / "full", Build())
    with serving() as server:
        server.folder = tmp_path / "full"
        first = offers.recognise(ctx, server.url)
        server.folder = None
        server.files = {}
    (decision,) = decisions.make(
        [Build().wanted()], [first, offers.recognise(ctx, full)], MACHINE, partial=False
    )
    assert decision.where == full
    with pytest.raises(FetchError):
        decisions.make([Build().wanted()], [first], MACHINE, partial=True)


def test_places_that_are_neither(ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither a store nor a conda channel"):
        offers.recognise(ctx, str(tmp_path))
    with serving() as server, pytest.raises(ConfigurationError, match="neither"):
        offers.recognise(ctx, server.url)


def test_a_wheel_among_the_stores(ctx: Context, tmp_path: Path) -> None:
    wheel = str(Build().wheel(tmp_path))
    assert decide(ctx, wheel)[0].where == wheel
    assert decide(ctx, wheel, wanted=(OTHER,), partial=True)[0].action == decisions.COMPILE


@pytest.mark.parametrize(
    "settings",
    [
        Settings(use_precompiled=True),
        Settings(use_precompiled=True, precompiled_sha256="0" * 64, precompiled_stores=("/x",)),
    ],
)
def test_settings_that_say_nothing(ctx: Context, settings: Settings) -> None:
    with pytest.raises(ConfigurationError) as caught:
        offers.of_settings(ctx, settings)
    assert "VLLM_PRECOMPILED_WHEEL_LOCATION" in str(caught.value)


def package(
    path: Path, build: str = f"cpu_abi3_k{KERNEL_DIGEST[:12]}_h1_0", number: int = 0, **more: Any
) -> dict[str, Any]:
    return {
        path.name: {
            "name": OUTPUT,
            "build": build,
            "build_number": number,
            "sha256": sha256_of(path),
            **more,
        }
    }


def test_a_channel_with_several_packages_from_the_same_sources(
    ctx: Context, tmp_path: Path
) -> None:
    """Other architectures, say: the digest in the package decides."""
    folder = tmp_path / "channel" / kernel_channel.subdir()
    older = Build(facts={"build_digest": "1" * 64}).conda(folder, "a-1-0.conda")
    right = Build().conda(folder, "a-1-1.conda")
    cuda = Build().conda(folder, "a-1-2.conda")
    index = {
        **package(older, number=9),
        **package(right),
        **package(cuda, "cuda130_abi3_kcdcdcdcdcdcd_h1_0", 8),
    }
    index |= {"other-1.conda": {**package(right)["a-1-1.conda"], "name": "other"}}
    write_channel(tmp_path / "channel", kernel_channel.subdir(), index)
    (decision,) = decide(ctx, str(tmp_path / "channel"))
    assert decision.where.endswith("a-1-1.conda")
    with serving() as server:
        server.folder = tmp_path / "channel"
        assert (
            decide(ctx, server.url + "/")[0].where
            == f"{server.url}/{kernel_channel.subdir()}/a-1-1.conda"
        )
    right.unlink()
    index.pop("a-1-1.conda")
    write_channel(tmp_path / "channel", kernel_channel.subdir(), index)
    with pytest.raises(RefusedError, match="digest"):
        decide(ctx, str(tmp_path / "channel"))


def test_a_channel_of_a_toolkit(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / kernel_channel.subdir()
    build = Build(facts={"device": "cuda", "toolkit": "13.0"})
    path = build.conda(folder)
    write_channel(
        tmp_path,
        kernel_channel.subdir(),
        package(path, f"cuda130_abi3_k{KERNEL_DIGEST[:12]}_h1_100"),
    )
    machine = replace(MACHINE, device="cuda", toolkit=Version("13.1"))
    source = offers.recognise(ctx, str(tmp_path))
    assert (
        decisions.make([build.wanted()], [source], machine, partial=False)[0].action
        == decisions.REUSE
    )
    with pytest.raises(RefusedError, match="no build"):
        decisions.make(
            [build.wanted()], [source], replace(machine, toolkit=Version("12.9")), partial=False
        )
    source.close()


@pytest.mark.parametrize(
    ("machine", "check"),
    [
        ({"torch": None}, None),
        ({"torch": Version("2.10.1+cpu")}, "torch"),
        ({"torch": Version("2.11.0a0+git")}, None),
        ({"platform": "linux-riscv64"}, "platform"),
        ({"python_abi": "cpython-314t"}, "python-abi"),
        ({"device": "xpu"}, "device"),
        ({"toolkit": Version("12.9")}, "toolkit"),
    ],
)
def test_machines(ctx: Context, tmp_path: Path, machine: dict[str, Any], check: str | None) -> None:
    offer = offers.recognise(ctx, store(ctx, tmp_path / "store", Build())).find(
        Build().wanted(), MACHINE
    )
    assert offer is not None
    record = offer.record()
    if check is None:
        fitness.require(record, Build().wanted(), replace(MACHINE, **machine), "here")
        return
    with pytest.raises(RefusedError) as caught:
        fitness.require(record, Build().wanted(), replace(MACHINE, **machine), "here")
    assert caught.value.check == check


def test_this_machine(tmp_path: Path) -> None:
    torch = TorchFlavour("cpu", "2.13.0+cpu", None, tmp_path, temporary=False)
    here = fitness.Machine.here(Target("cpu", "why", None, torch))
    assert (here.device, here.torch, here.platform) == (
        "cpu",
        Version("2.13.0+cpu"),
        sysconfig.get_platform(),
    )
    assert (
        fitness.Machine.here(Target("cpu", "why", None, replace(torch, temporary=True))).torch
        is None
    )


def test_place_makes_the_tree_what_it_is_given(ctx: Context, tmp_path: Path) -> None:
    assert ctx.cache.root.is_dir()
    tree, source = (
        Build({"vllm/_moe_C.abi3.so": elf(1), "vllm/_rocm_C.so": elf(2)}).unpacked(
            tmp_path / "tree"
        ),
        tmp_path / "source",
    )
    Build().unpacked(source)
    files = {name: source / name for name in (*LIBRARIES, RECORD)}
    (tree / "vllm" / "_ops.py").touch()
    # Of no build: a developer's own.
    (tree / "vllm" / "_mine.so").write_bytes(elf(3))
    (tree / "vllm" / ".vllm-build-left").mkdir()
    (tree / "vllm" / ".vllm-build-left" / "old.so").touch()
    changed = placement.place(files, tree)
    assert changed == ["vllm/_C.abi3.so", RECORD, "vllm/_rocm_C.so"]
    found = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    assert found == [
        "vllm/_C.abi3.so",
        RECORD,
        "vllm/_mine.so",
        "vllm/_moe_C.abi3.so",
        "vllm/_ops.py",
    ]
    assert placement.place(files, tree) == []
    assert (tree / LIBRARIES[0]).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("moment", range(7))
def test_place_puts_everything_back(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    assert ctx.cache.root.is_dir()
    tree = Build({name: elf(9 + n) for n, name in enumerate(LIBRARIES)}).unpacked(tmp_path / "tree")
    source = Build().unpacked(tmp_path / "source")
    before, done = snapshot(tree), []
    real = placement._move

    def move(*arguments: Any) -> None:
        done.append(1)
        if len(done) == moment + 1:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(placement, "_move", move)
    files = {name: source / name for name in (*LIBRARIES, RECORD)}
    if moment < 6:
        with pytest.raises(KeyboardInterrupt):
            placement.place(files, tree)
        assert snapshot(tree) == before
    else:
        placement.place(files, tree)
        assert len(done) == 6
    assert {path.name for path in (tree / "vllm").iterdir()} == {
        "_C.abi3.so",
        "_moe_C.abi3.so",
        "_build_info",
    }


def test_wanted_outputs_of_a_device(root: Path) -> None:
    (wanted,) = preparation.wanted(
        root, preparation.planned(root, Settings(), Target("cpu", "why"))
    )
    assert wanted.output == OUTPUT
    assert wanted.libraries == ("vllm/_C.abi3.so",)
    assert wanted.kernel_digest == tree_digests.kernel_digest(root, OUTPUT)
    assert wanted.digest not in ("", wanted.kernel_digest)
    with pytest.raises(ConfigurationError, match="release of the toolkit for cuda is not known"):
        preparation.planned(root, Settings(), Target("cuda", "why"))


@pytest.fixture
def command(
    root: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> cmake_ext.precompiled_build_ext:
    assert tools.is_dir()
    monkeypatch.setenv("VLLM_TARGET_DEVICE", "cpu")
    monkeypatch.setenv("VLLM_USE_PRECOMPILED", "1")
    monkeypatch.setenv("MAX_JOBS", "1")
    extension = cmake_ext.CMakeExtension("vllm._C", str(root))
    command = cmake_ext.precompiled_build_ext(
        Distribution({"name": "vllm", "version": "1.0", "ext_modules": [extension]})
    )
    command.build_lib = str(tmp_path / "lib")
    command.ensure_finalized()
    return command


@pytest.fixture
def real(root: Path) -> Build:
    """A build that this tree asks for."""
    (wanted,) = preparation.wanted(
        root, preparation.planned(root, Settings(), Target("cpu", "why"))
    )
    return Build(
        {name: elf() for name in wanted.libraries},
        {"build_digest": wanted.digest, "kernel_digest": wanted.kernel_digest},
    )


def test_the_command_reuses(
    command: cmake_ext.precompiled_build_ext,
    real: Build,
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving() as server:
        server.folder = real.wheel(tmp_path / "wheels").parent
        monkeypatch.setenv(
            "VLLM_PRECOMPILED_WHEEL_LOCATION", f"{server.url}/vllm-0.1.0-py3-none-any.whl"
        )
        command.run()
    assert calls(tools) == []
    said = capsys.readouterr().err
    assert "fetched 0.0 MB in" in said
    assert "vllm-kernels: reuse: http://" in said
    outputs = [name.removeprefix(str(tmp_path / "lib") + "/") for name in command.get_outputs()]
    assert outputs == ["vllm/_C.abi3.so", RECORD]
    assert (tmp_path / "lib" / "vllm/_C.abi3.so").read_bytes() == elf()
    tree = tmp_path / "tree"
    monkeypatch.setattr(paths, "source_root", lambda: tree)
    command.inplace = True
    command.copy_extensions_to_source()
    assert (tree / RECORD).read_bytes() == real.record()


def test_the_command_refuses_and_changes_nothing(
    command: cmake_ext.precompiled_build_ext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(Build().wheel(tmp_path)))
    Build().unpacked(tmp_path / "lib")
    before = snapshot(tmp_path / "lib")
    with pytest.raises(RefusedError, match="digest"):
        command.run()
    assert snapshot(tmp_path / "lib") == before


def test_the_command_compiles_what_is_missing(
    command: cmake_ext.precompiled_build_ext,
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_PRECOMPILED_WHEEL_LOCATION", str(Build().wheel(tmp_path)))
    monkeypatch.setenv("VLLM_PRECOMPILED_PARTIAL", "1")
    # With the locked Highway; another one makes the build private.
    monkeypatch.setattr(cmake_configure, "highway", lambda *_: {"HIGHWAY_SRC_DIR": "locked"})
    command.run()
    assert [call["args"][0] for call in calls(tools)] == ["-S", "--build", "--install"]
    assert command.left == (OUTPUT,)
    assert "vllm-kernels: compile: " in capfd.readouterr().err
    record = json.loads((tmp_path / "lib" / RECORD).read_text(encoding="utf-8"))
    assert record["platform"] == sysconfig.get_platform()
    assert record["toolkit"] is None
    # What has been compiled is what a store can have.
    folder = tmp_path / "store"
    assert list(store_publish.publish(tmp_path / "lib", folder, Context()).values()) == [True]
    monkeypatch.delenv("VLLM_PRECOMPILED_WHEEL_LOCATION")
    monkeypatch.setenv("VLLM_PRECOMPILED_STORES", str(folder))
    again = cmake_ext.precompiled_build_ext(command.distribution)
    again.build_lib = str(tmp_path / "again")
    again.ensure_finalized()
    again.run()
    assert calls(tools) == []
    assert (tmp_path / "again" / "vllm/_C.abi3.so").read_bytes() == (
        tmp_path / "lib" / "vllm/_C.abi3.so"
    ).read_bytes()


def test_outputs_by_name(
    root: Path, tools: Path, real: Build, tmp_path: Path, ctx: Context
) -> None:
    assert tools.is_dir()
    settings = Settings(target_device="cpu", precompiled_location=str(real.wheel(tmp_path)))
    with preparation.prepared(root, settings, ctx, [OUTPUT]) as reuse:
        assert sorted(reuse.fetch()) == ["vllm/_C.abi3.so", RECORD]
        assert (reuse.compiled, reuse.compiled_files) == ((), ())
    with (
        pytest.raises(ConfigurationError, match="has no output vllm-flashmla"),
        preparation.prepared(root, settings, ctx, ["vllm-flashmla"]),
    ):
        pass
    with preparation.prepared(root, replace(settings, target_device="empty"), ctx) as reuse:
        assert reuse.decisions == ()


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"VLLM_PRECOMPILED_STORES": "/x"}, ["zstandard>=0.22"]),
        ({"VLLM_PRECOMPILED_WHEEL_LOCATION": "/x.whl"}, []),
        ({"VLLM_PRECOMPILED_WHEEL_LOCATION": "/x.conda"}, ["zstandard>=0.22"]),
        (
            {"VLLM_PRECOMPILED_STORES": "/x", "VLLM_PRECOMPILED_KEY": "/x.pem"},
            ["zstandard>=0.22", "securesystemslib[crypto]>=1.0"],
        ),
        ({"VLLM_PRECOMPILED_WHEEL_LOCATION": "/x.whl", "VLLM_PRECOMPILED_KEY": "/x.pem"}, []),
        ({"VLLM_PRECOMPILED_PARTIAL": "1"}, ["torch>=2.11", "cmake>=3.26", "ninja"]),
    ],
)
def test_build_requirements(
    bare: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    names: list[str],
) -> None:
    assert bare.is_dir()
    monkeypatch.setattr("vllm_build.native.cmake.sys.executable", str(tmp_path / "bin" / "python"))
    for name, value in {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_USE_PRECOMPILED": "1",
        **environ,
    }.items():
        monkeypatch.setenv(name, value)
    assert [
        requirement.partition(";")[0] for requirement in backend._requirements(lambda _: [], None)
    ] == names
