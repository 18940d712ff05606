# SPDX-License-Identifier: Apache-2.0
"""Sources of kernels, and the decision to reuse, compile or refuse an output."""

from __future__ import annotations

import sysconfig
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version
from reuse_files import (
    DIGEST,
    KERNEL_DIGEST,
    MACHINE,
    OUTPUT,
    Build,
    elf,
    write_channel,
)
from reuse_server import serving

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
from vllm_build.util.errors import ConfigurationError, FetchError
from vllm_build.util.files import sha256_of

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


def test_the_error_is_about_the_first_build_that_does_not_fit(ctx: Context, tmp_path: Path) -> None:
    """One store has a build for another machine, and the other has none."""
    other = store(ctx, tmp_path / "other", Build(facts={"platform": "linux-s390x"}))
    with pytest.raises(RefusedError) as caught:
        decide(ctx, store(ctx, tmp_path / "empty", OTHER), other)
    assert caught.value.check == "platform"


def test_a_store_with_builds_for_several_machines(ctx: Context, tmp_path: Path) -> None:
    both = store(ctx, tmp_path / "both", Build(facts={"platform": "linux-s390x"}), Build())
    assert decide(ctx, both)[0].action == decisions.REUSE


def test_an_unreachable_source(ctx: Context, tmp_path: Path) -> None:
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


def test_locations_without_store_or_channel(ctx: Context, tmp_path: Path) -> None:
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
def test_settings_without_a_source(ctx: Context, settings: Settings) -> None:
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
    """The packages may be for different architectures; the digest in the record decides."""
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
