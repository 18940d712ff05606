# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm._kernels import build_info
from vllm._kernels.build_info import BuildInfoError, ExtensionInfo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
KEYS = ["schema", "component", "version", "device", "kernel_digest", "torch_target", "extensions"]


def test_reads_what_the_build_writes(tmp_path: Path, write_record: Callable[..., Path]) -> None:
    info = build_info.read(write_record(tmp_path))
    assert (info.component, info.version, info.device, info.torch_target) == (
        "vllm-kernels",
        "0.1.0+cpu",
        "cpu",
        "2.11",
    )
    assert info.extensions == (
        ExtensionInfo(
            "vllm._C", "vllm/_C.abi3.so", hashlib.sha256(b"x").hexdigest(), 1, ("norm-cpu",)
        ),
    )
    assert info.document["compiler"] == {"id": "GNU", "version": "12.2.0"}


def test_reads_what_vllm_build_writes(tmp_path: Path) -> None:
    writer = pytest.importorskip(
        "vllm_build.project.build_info",
        reason="the build library is not on the path: an installed package is under test",
    )
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "_C.abi3.so").write_bytes(b"library")
    described = writer.describe("vllm._C", tmp_path / "vllm" / "_C.abi3.so", tmp_path, ("a", "b"))
    keys = {
        "component": "vllm-kernels",
        "version": "1",
        "device": "cpu",
        "kernel_digest": "d",
        "torch_target": "2.11",
    }
    writer.write(tmp_path / "r.json", keys, (described,))
    info = build_info.read(tmp_path / "r.json")
    assert info.extensions[0].kernels == ("a", "b")
    assert build_info.check_file(info.extensions[0], tmp_path) is None


def test_installed_is_sorted_and_may_be_empty(
    tmp_path: Path, write_record: Callable[..., Path]
) -> None:
    assert build_info.installed(tmp_path / "_build_info") == ()
    write_record(tmp_path, component="vllm-kernels")
    write_record(tmp_path, component="vllm-flashmla")
    assert [info.component for info in build_info.installed(tmp_path / "_build_info")] == [
        "vllm-flashmla",
        "vllm-kernels",
    ]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(
    tmp_path: Path, write_record: Callable[..., Path], key: str
) -> None:
    path = write_record(tmp_path)
    document = json.loads(path.read_text())
    del document[key]
    path.write_text(json.dumps(document))
    with pytest.raises(BuildInfoError, match=rf"vllm-kernels\.json: {key} is missing, expected "):
        build_info.read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema is 2, this vllm reads 1"),
        ({"schema": True}, "schema is True, expected an integer"),
        ({"device": 7}, "device is 7, expected a string"),
        ({"extensions": {}}, "extensions is {}, expected an array"),
        ({"extensions": ["x"]}, r"extensions\[0\] is 'x', expected an object"),
        ({"extensions": [{"name": "n"}]}, r"extensions\[0\]: file is missing, expected a string"),
    ],
)
def test_a_wrong_value_is_shown(
    tmp_path: Path, write_record: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BuildInfoError, match=message):
        build_info.read(write_record(tmp_path, **changes))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"null"])
def test_no_json_object(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(BuildInfoError, match=r"x\.json"):
        build_info.read(path)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BuildInfoError, match="No such file"):
        build_info.read(tmp_path / "none.json")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(key=st.sampled_from(KEYS), value=JSON)
def test_any_value_is_read_or_refused(
    tmp_path: Path, write_record: Callable[..., Path], key: str, value: Any
) -> None:
    path = write_record(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    try:
        info = build_info.read(path)
    except BuildInfoError as error:
        assert key in str(error)  # noqa: PT017 - both outcomes are correct, with different conditions
    else:
        assert info.document[key] == value


def test_check_file(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(b"abc")
    right = ExtensionInfo("lib", "lib.so", hashlib.sha256(b"abc").hexdigest(), 3, ())
    assert build_info.check_file(right, tmp_path) is None
    path.write_bytes(b"abd")
    assert (build_info.check_file(right, tmp_path) or "").startswith(
        f"has sha256 {hashlib.sha256(b'abd').hexdigest()}, "
    )
    path.write_bytes(b"abcd")
    assert build_info.check_file(right, tmp_path) == "has 4 bytes, 3 were built"
    path.unlink()
    assert build_info.check_file(right, tmp_path) == "cannot be read: No such file or directory"


def test_the_records_of_this_installation_fit_its_files() -> None:
    for record in build_info.installed():
        assert {
            extension.file: build_info.check_file(extension) for extension in record.extensions
        } == dict.fromkeys(extension.file for extension in record.extensions)
