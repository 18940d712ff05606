# SPDX-License-Identifier: Apache-2.0
"""Which kernels a build compiles, for which architectures, and why not the others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from plan_scene import SAMPLE, decision

from vllm_build.architectures import gpu_targets
from vllm_build.kernels import plan_resolver
from vllm_build.settings.build_settings import Settings
from vllm_build.util.errors import ConfigurationError


@pytest.mark.parametrize(
    ("kernel_name", "device", "toolkit", "targets", "state", "archs", "reason"),
    [
        ("norm-gpu", "cuda", "12.9", "8.6;9.0a", "built", "8.0 9.0", "for 8.0 9.0"),
        ("norm-gpu", "cuda", "12.9", "9.0+PTX", "built", "9.0+PTX", "for 9.0+PTX"),
        ("norm-host", "cuda", "12.9", "9.0", "device", "", "written for cpu, xpu, not for cuda"),
        (
            "gemm-sm90",
            "cuda",
            "12.9",
            "8.0",
            "arch",
            "",
            "written for 9.0a, which serve none of 8.0",
        ),
        ("gemm-sm90", "cuda", "12.9", "9.0", "built", "9.0a", "for 9.0a"),
        (
            "gemm-sm90",
            "cuda",
            "11.8",
            "9.0",
            "toolkit",
            "",
            "gemm-sm90 needs CUDA >= 12.0, this is 11.8",
        ),
        ("gemm-blackwell", "cuda", "12.9", "10.3;12.1a", "built", "10.0f 12.0f", "for 10.0f 12.0f"),
        (
            "gemm-blackwell",
            "cuda",
            "12.8",
            "10.0;8.0",
            "toolkit",
            "",
            "10.0f needs CUDA >= 12.9; 12.0f needs CUDA >= 12.9",
        ),
        (
            "gemm-blackwell",
            "cuda",
            "12.8",
            "8.0",
            "arch",
            "",
            "written for 10.0f 12.0f, which serve none of 8.0",
        ),
        ("gemm-blackwell", "cuda", None, "10.0;8.0", "built", "10.0f", "for 10.0f"),
        (
            "fa3",
            "cuda",
            "12.2",
            "9.0a",
            "toolkit",
            "",
            "vllm.vllm_flash_attn._vllm_fa3_C needs CUDA >= 12.3, this is 12.2",
        ),
        (
            "fa3",
            "cuda",
            "12.9",
            "9.0",
            "arch",
            "",
            "vllm.vllm_flash_attn._vllm_fa3_C needs 9.0a in the list, which is 9.0",
        ),
        (
            "fa2",
            "cuda",
            "12.9",
            "7.5",
            "arch",
            "",
            (
                "vllm.vllm_flash_attn._vllm_fa2_C needs an architecture >= 8.0 in the list, which "
                "is "
                "7.5"
            ),
        ),
        ("fa2", "cuda", "12.9", "9.0a;12.0f", "built", "8.0+PTX", "for 8.0+PTX"),
        ("allocator", "cuda", "12.9", "9.0a", "built", "", "for cuda"),
        (
            "attention-rocm",
            "rocm",
            "6.4",
            "gfx90a;gfx942",
            "built",
            "gfx90a gfx942",
            "for gfx90a gfx942",
        ),
        ("attention-rocm", "rocm", "6.4", "gfx90a;gfx950", "built", "gfx90a", "for gfx90a"),
        (
            "attention-rocm",
            "rocm",
            "6.4",
            "gfx90a:xnack-",
            "built",
            "gfx90a:xnack-",
            "for gfx90a:xnack-",
        ),
        ("attention-rocm", "rocm", "6.4", "gfx942;gfx1100", "built", "gfx942", "for gfx942"),
        (
            "attention-rocm",
            "rocm",
            "6.4",
            "gfx1100",
            "arch",
            "",
            "written for gfx90a gfx942 gfx950, which serve none of gfx1100",
        ),
    ],
)
def test_states_and_reasons(
    kernel_name: str,
    device: str,
    toolkit: str | None,
    targets: str,
    state: str,
    archs: str,
    reason: str,
) -> None:
    resolved = plan_resolver.survey(
        SAMPLE, device, toolkit_version=Version(toolkit) if toolkit else None, arch_list=targets
    )
    found = decision(resolved, kernel_name)
    assert (found.state, " ".join(found.archs), found.reason) == (state, archs, reason)


@pytest.mark.parametrize(
    ("kernel_name", "toolkit", "targets", "unserved"),
    [
        (
            "gemm-sm90",
            "12.9",
            "8.0;9.0a;10.0f+PTX",
            {"8.0": "none of 9.0a serves it", "10.0f+PTX": "none of 9.0a serves it"},
        ),
        (
            "gemm-blackwell",
            "12.8",
            "8.0;12.0+PTX",
            {"8.0": "none of 10.0f 12.0f serves it", "12.0+PTX": "12.0f needs CUDA >= 12.9"},
        ),
        ("norm-gpu", "12.9", "7.0;8.0", {"7.0": "none of 7.5 8.0 9.0 10.0 12.0+PTX serves it"}),
        ("norm-gpu", "13.0", "7.5;12.1", {}),
    ],
)
def test_unserved_targets_are_listed_with_the_reason(
    kernel_name: str, toolkit: str, targets: str, unserved: dict[str, str]
) -> None:
    resolved = plan_resolver.survey(
        SAMPLE, "cuda", toolkit_version=Version(toolkit), arch_list=targets
    )
    assert {u.target: u.reason for u in decision(resolved, kernel_name).unserved} == unserved
    listed = {
        entry["target"]: entry["reason"]
        for entry in json.loads(resolved.to_json())["unserved"]
        if entry["kernel"] == kernel_name
    }
    assert listed == unserved


@pytest.mark.parametrize("device", ["cpu", "xpu", "tpu", "empty"])
def test_a_list_for_a_device_without_architectures(device: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"--arch-list: device '{device}' has no GPU architectures"
    ):
        plan_resolver.survey(SAMPLE, device, arch_list="8.0", arch_source="--arch-list")


@pytest.mark.parametrize("text", ["", "+PTX", "8.0,9.0", "sm_90", "8.1", "gfx90a", "9.0b"])
def test_malformed_list_names_the_variable(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TORCH_CUDA_ARCH_LIST"):
        plan_resolver.resolve(SAMPLE, "cuda", arch_list=text)


@pytest.mark.parametrize(
    ("device", "environ", "targets"),
    [
        ("cuda", {"TORCH_CUDA_ARCH_LIST": "9.0a 8.0"}, ("8.0", "9.0a")),
        ("cuda", {"CMAKE_CUDA_ARCHITECTURES": "90a-real"}, ("9.0a",)),
        ("rocm", {"PYTORCH_ROCM_ARCH": "gfx942"}, ("gfx942",)),
        ("cuda", {"PYTORCH_ROCM_ARCH": "gfx942"}, gpu_targets.default("cuda", None)),
        ("cpu", {"TORCH_CUDA_ARCH_LIST": "8.0"}, ()),
    ],
)
def test_the_environment_chooses(
    device: str, environ: dict[str, str], targets: tuple[str, ...]
) -> None:
    assert (
        plan_resolver.for_settings(SAMPLE, device, None, Settings.from_environ(environ)).targets
        == targets
    )


def test_the_environment_s_mistakes_are_its_own() -> None:
    with pytest.raises(ConfigurationError, match="PYTORCH_ROCM_ARCH"):
        plan_resolver.for_settings(
            SAMPLE, "rocm", None, Settings.from_environ({"PYTORCH_ROCM_ARCH": "9.0"})
        )


TARGETS = st.lists(
    st.sampled_from(["7.5", "8.0", "8.6", "8.9", "9.0", "9.0a", "10.0f", "10.3", "12.0", "12.1a"]),
    min_size=1,
)


TOOLKITS = st.none() | st.sampled_from(
    [Version(text) for text in ("11.8", "12.2", "12.8", "12.9", "13.0")]
)


@given(TARGETS, TOOLKITS, st.booleans())
def test_every_kernel_has_one_state_and_every_target_one_fate(
    targets: list[str],
    toolkit: Version | None,
    ptx: bool,  # noqa: FBT001
) -> None:
    text = ";".join(targets) + ("+PTX" if ptx else "")
    resolved = plan_resolver.survey(SAMPLE, "cuda", toolkit_version=toolkit, arch_list=text)
    assert (
        resolved.to_json()
        == plan_resolver.survey(
            SAMPLE, "cuda", toolkit_version=toolkit, arch_list=" ".join(reversed(text.split(";")))
        ).to_json()
    )
    assert [d.kernel.name for d in resolved.decisions] == [k.name for k in SAMPLE.kernels]
    built = {k.name for e in resolved.extensions for k in e.kernels}
    assert built == {d.kernel.name for d in resolved.decisions if d.state == "built"}
    for d in resolved.decisions:
        assert d.reason
        assert all(gpu_targets.why_not_compiled("cuda", arch, toolkit) is None for arch in d.archs)
        if d.archs:
            assert {u.target for u in d.unserved} < set(resolved.targets)


@given(TARGETS, st.sampled_from(["7.5", "8.0", "9.0a", "10.0f", "12.0"]))
def test_one_more_target_changes_no_other_kernel(targets: list[str], more: str) -> None:
    before = plan_resolver.survey(SAMPLE, "cuda", arch_list=";".join(targets))
    after = plan_resolver.survey(SAMPLE, "cuda", arch_list=";".join([*targets, more]))
    for old, new in zip(before.decisions, after.decisions, strict=True):
        if old.state == "built" and old.kernel.archs:
            _, unserved = gpu_targets.match("cuda", old.kernel.archs["cuda"], (more,))
            assert set(old.archs) <= set(new.archs)
            assert not unserved or new.archs == old.archs
