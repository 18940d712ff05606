# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vllm_build.toolchain.download_store import Store
from vllm_build.toolchain.toolchain_lock import LockedFile
from vllm_build.util.errors import IntegrityError, ResourceError
from vllm_build.util.files import disk_errors, sha256_of, write_text

CONTENT = b"content" * 1000
FILE = LockedFile("b", 0, "pypi", "thing", "1", "thing.whl", hashlib.sha256(CONTENT).hexdigest())


def arrive(store: Store, content: bytes) -> Path:
    with store.incoming() as folder:
        path = folder / "as-downloaded"
        path.write_bytes(content)
        return store.put(FILE, path)


def test_a_file_is_kept_under_its_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get(FILE) is None
    path = arrive(store, CONTENT)
    assert path == tmp_path / "sha256" / FILE.sha256[:2] / FILE.sha256 / "thing.whl"
    assert store.get(FILE) == path
    assert path.read_bytes() == CONTENT
    assert list((tmp_path / "incoming").iterdir()) == []


def test_other_bytes_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(IntegrityError) as caught:
        arrive(store, b"other")
    assert hashlib.sha256(b"other").hexdigest() in caught.value.message
    assert FILE.sha256 in str(caught.value.expected)
    assert store.get(FILE) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_damaged_copy_counts_as_absent_and_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = arrive(store, CONTENT)
    path.write_bytes(CONTENT[:-1])
    assert store.get(FILE) is None
    assert not path.exists()
    assert arrive(store, CONTENT) == store.get(FILE)


def test_many_at_once_agree(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: arrive(store, CONTENT), range(32)))
    assert paths == {store.path(FILE)}
    assert sha256_of(store.path(FILE)) == FILE.sha256


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no space left") as caught, disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "VLLM_BUILD_CACHE" in str(caught.value)


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_a_full_disk_keeps_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_text(path, "old")

    def full(_self: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ResourceError):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
