# SPDX-License-Identifier: Apache-2.0
"""The ops that sources register."""

from __future__ import annotations

import contextlib
import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from plan_scene import cpu_plan

from vllm_build.kernels import kernels_table, op_table, plan_resolver
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


DEFINITION = """
STABLE_TORCH_LIBRARY_FRAGMENT(_C, m) {
  m.def("f(Tensor! out, str x=\\"auto\\") -> ()");
  m.def(
      "g(Tensor x, "
      "int n=1) -> Tensor");
}
"""
DEVICE = 'VLLM_LIBRARY_IMPL(_C, m) {\n  m.impl("f", VLLM_BOX(vllm::F));\n}\n'
BY_NAME = (
    'STABLE_TORCH_LIBRARY_IMPL(_C, CompositeExplicitAutograd, m) { m.impl("g", '
    "TORCH_BOX(&vllm::G)); }\n"
)
F, G = '_C::f(Tensor! out, str x="auto") -> ()', "_C::g(Tensor x, int n=1) -> Tensor"


def write(root: Path, text: str) -> Path:
    path = root / "f.cc"
    path.write_text(text, encoding="utf-8")
    return path


def cuda_plan(root: Path) -> Any:
    return plan_resolver.resolve(kernels_table.load(root), "cuda", toolkit_version=Version("13.0"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_definition_of_the_tree_is_found(root: Path, device: str) -> None:
    """The table has each `m.def` of the device's bindings, and nothing else."""
    table = op_table.load(root)
    assert set(table) == {kernel.name for kernel in kernels_table.load(root).kernels}
    chosen = cpu_plan(root) if device == "cpu" else cuda_plan(root)
    listed = {
        schema.partition("::")[2].partition("(")[0]
        for s in op_table.of_plan(table, chosen).values()
        for schema in s
    }
    bindings = [root / source for source in chosen.sources() if "bindings" in source.parts]
    defined = {
        name
        for path in bindings
        for name in re.findall(r'm\.def\(\s*"(\w+)', path.read_text(encoding="utf-8"))
    }
    assert listed == defined
    assert len(listed) > 50


def test_the_ops_of_one_source(root: Path) -> None:
    """Split literals are joined.

    A file that two devices share has the key of each, and a source may also name keys.
    """
    table = op_table.load(root)
    (greedy, gumbel) = (
        "_C::greedy_argmax(Tensor logits) -> Tensor",
        "_C::fused_gumbel_argmax(Tensor logits, Tensor seeds) -> Tensor",
    )
    assert table["sampling-cpu"] == {"CPU": (greedy, gumbel)}
    assert table["sampling-gpu"] == {"CUDA": (greedy, gumbel)}
    assert table["cpu-dispatch"] == {"CompositeExplicitAutograd": ("_C::cpu_isa() -> str",)}
    assert table["gpu-runtime"] == {}
    assert [schema.partition("(")[0] for schema in table["cache-gpu"]["CPU"]] == [
        "_C_cache_ops::swap_blocks_batch"
    ]
    long = (
        "_C::mla_decode_kvcache(Tensor! out, Tensor query, Tensor kv_cache, float scale, Tensor "
        "block_tables, Tensor seq_lens) -> ()"
    )
    assert table["latent-attention-cpu"] == {"CPU": (long,)}


def test_a_plan_of_another_tree(root: Path) -> None:
    table = {name: keys for name, keys in op_table.load(root).items() if name != "norm-cpu"}
    with pytest.raises(ConfigurationError, match="has no kernel 'norm-cpu'"):
        op_table.of_plan(table, cpu_plan(root))


def test_registrations(tmp_path: Path) -> None:
    path = write(tmp_path, f"{DEFINITION}\n{DEVICE}// For hosts.\n{BY_NAME}")
    assert op_table.registrations(path) == {
        op_table.OF_DEVICE: (F,),
        "CompositeExplicitAutograd": (G,),
    }
    # A second block for the same key, as between #if and #endif, and an op with two keys.
    more = 'STABLE_TORCH_LIBRARY_IMPL(_C, CPU, m) { m.impl("f", VLLM_BOX(vllm::F)); }\n'
    assert op_table.registrations(
        write(tmp_path, f"{DEFINITION}{DEVICE}{DEVICE}{BY_NAME}#if X\n{more}#endif\n")
    ) == {
        op_table.OF_DEVICE: (F,),
        "CompositeExplicitAutograd": (G,),
        "CPU": (F,),
    }
    assert op_table.registrations(write(tmp_path, "namespace vllm {}\n")) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DEFINITION + DEVICE, r"_C::g\(.*\) -> Tensor is defined but not implemented"),
        (DEVICE, "_C::f is implemented but not defined"),
        (
            DEFINITION + DEVICE + BY_NAME + 'void More(Library& m) { m.def("h() -> ()"); }\n',
            "1 of 5 calls of m.def and m.impl cannot be parsed",
        ),
        (DEFINITION.replace('m.def("f(', 'm.def(kF, "f(') + BY_NAME, "1 of 3 calls"),
        (DEFINITION.replace("f(Tensor! out", "f Tensor! out"), "is not a schema"),
        (DEFINITION.replace("f(Tensor", "f\\x(Tensor"), "is not a schema"),
    ],
)
def test_what_is_not_understood_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        op_table.registrations(write(tmp_path, text))


@pytest.mark.parametrize(
    ("devices", "key"),
    [('"cpu"', "CPU"), ('"cuda"', "CUDA"), ('"cuda", "rocm"', "CUDA"), ('"xpu"', "XPU")],
)
def test_the_key_of_a_kernel_is_its_devices(
    tmp_path: Path, devices: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = SimpleNamespace(
        name="f", sources=("f.cc", "f.cu"), devices=tuple(json.loads(f"[{devices}]"))
    )
    monkeypatch.setattr(kernels_table, "load", lambda _: SimpleNamespace(kernels=(kernel,)))
    write(tmp_path, DEFINITION + DEVICE + BY_NAME)
    assert op_table.load(tmp_path) == {"f": {key: (F,), "CompositeExplicitAutograd": (G,)}}


def test_a_kernel_of_devices_with_two_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SimpleNamespace(name="f", sources=("f.cc",), devices=("cpu", "cuda"))
    monkeypatch.setattr(kernels_table, "load", lambda _: SimpleNamespace(kernels=(kernel,)))
    write(tmp_path, DEFINITION + DEVICE + BY_NAME)
    with pytest.raises(ConfigurationError, match="the kernel 'f' registers ops for CPU, CUDA"):
        op_table.load(tmp_path)


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        op_table.registrations(tmp_path / "f.cc")


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "f.cc"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"f\.cc"):
        op_table.registrations(path)


@given(
    st.text()
    | st.lists(
        st.sampled_from([DEFINITION, DEVICE, BY_NAME, "}\n", '"', "\\", "m.def(", "m.impl("])
    ).map("".join)
)
def test_any_text_is_read_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("tree") / "f.cc"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with contextlib.suppress(ConfigurationError):
        op_table.registrations(path)
