# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.error import URLError

import pytest

from vllm_build import cli
from vllm_build.commands.explain import doctor
from vllm_build.util import errors

if TYPE_CHECKING:
    from vllm_build.util.console import Console


def subclasses() -> list[type[errors.VllmBuildError]]:
    return errors.VllmBuildError.__subclasses__()


def test_each_failure_kind_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in subclasses()]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    # Statuses from 128 are signals.
    assert max(codes) < 128


def failing(error: BaseException) -> object:
    def command(*_: object) -> NoReturn:
        raise error

    return command


@pytest.mark.parametrize("kind", subclasses())
def test_errors_end_with_their_code_and_no_traceback(
    kind: type[errors.VllmBuildError],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        doctor, "run", failing(kind("it broke", expected="whole", remedy="mend it"))
    )
    assert cli.main(["doctor"]) == kind.exit_code
    said = capsys.readouterr()
    assert not said.out
    assert "it broke" in said.err
    assert "mend it" in said.err
    assert "Traceback" not in said.err


def test_verbose_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "run", failing(errors.FetchError("gone")))
    assert cli.main(["doctor", "-v"]) == errors.FetchError.exit_code
    assert "Traceback" in capsys.readouterr().err


def test_json_carries_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        doctor, "run", failing(errors.IntegrityError("wrong bytes", remedy="fetch again"))
    )
    assert cli.main(["doctor", "--json"]) == errors.IntegrityError.exit_code
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == "IntegrityError"
    assert document["remedy"] == "fetch again"


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "run", failing(KeyboardInterrupt()))
    assert cli.main(["doctor"]) == 128 + signal.SIGINT
    assert "interrupted" in capsys.readouterr().err


def test_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "run", failing(OSError(errno.ENOSPC, "No space left on device")))
    assert cli.main(["doctor"]) == errors.ResourceError.exit_code
    assert "No space left" in capsys.readouterr().err


#: Exceptions that no module translates → the status, and a part of the message.
UNTRANSLATED: tuple[tuple[Exception, int, str], ...] = (
    (OSError(errno.EIO, "I/O error"), errors.ResourceError.exit_code, "I/O error"),
    (
        OSError(errno.EMFILE, "Too many open files"),
        errors.ResourceError.exit_code,
        "Too many open files",
    ),
    (
        OSError(errno.EPERM, "Operation not permitted"),
        errors.ResourceError.exit_code,
        "Operation not permitted",
    ),
    (
        PermissionError(errno.EACCES, "Permission denied", "/place/of/x"),
        errors.ConfigurationError.exit_code,
        "/place/of/x: Permission denied",
    ),
    (
        NotADirectoryError(errno.ENOTDIR, "Not a directory", b"/a/b"),
        errors.ConfigurationError.exit_code,
        "/a/b: Not a directory",
    ),
    (URLError("refused"), errors.FetchError.exit_code, "refused"),
    (TimeoutError("timed out"), errors.FetchError.exit_code, "timed out"),
    (MemoryError(), errors.ResourceError.exit_code, "out of memory"),
    (
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        errors.ConfigurationError.exit_code,
        "not UTF-8",
    ),
    (
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
        errors.InternalError.exit_code,
        "surrogates",
    ),
    (
        RecursionError("maximum recursion depth exceeded"),
        errors.InternalError.exit_code,
        "RecursionError",
    ),
    (KeyError("getpwuid(): uid not found: 12345"), errors.InternalError.exit_code, "report it"),
)


@pytest.mark.parametrize(
    ("error", "status", "text"), UNTRANSLATED, ids=lambda value: type(value).__name__
)
def test_what_no_module_translates_has_a_status_and_no_traceback(
    error: Exception,
    status: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "run", failing(error))
    assert cli.main(["doctor", "--json"]) == status
    said = capsys.readouterr()
    assert text in said.err
    assert "Traceback" not in said.err
    assert json.loads(said.out)["exit_code"] == status
    assert cli.main(["doctor", "-v"]) == status
    assert f"{type(error).__name__}" in capsys.readouterr().err.partition("direct cause")[0]


def test_an_error_names_what_named_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    error = NotADirectoryError(errno.ENOTDIR, "Not a directory", str(cache / "file"))
    monkeypatch.setattr(doctor, "run", failing(error))
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(cache))
    assert cli.main(["doctor"]) == errors.ConfigurationError.exit_code
    said = capsys.readouterr().err
    assert "Not a directory (VLLM_BUILD_CACHE names it)" in said
    assert "correct VLLM_BUILD_CACHE" in said


def test_a_failure_keeps_what_was_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answering(_: object, console: Console) -> NoReturn:
        console.json({"found": 3})
        raise errors.IntegrityError("one is damaged")

    monkeypatch.setattr(doctor, "run", answering)
    assert cli.main(["doctor", "--json"]) == errors.IntegrityError.exit_code
    document = json.loads(capsys.readouterr().out)
    assert (document["error"], document["result"]) == ("IntegrityError", {"found": 3})


@pytest.mark.parametrize(
    "words", [["nosuch"], [], ["plan", "--nosuch"], ["install"], ["cache", "nosuch"]]
)
def test_a_wrong_command_line_is_a_document_too(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--json"]) == errors.ConfigurationError.exit_code
    said = capsys.readouterr()
    assert json.loads(said.out)["error"] == "ConfigurationError"
    assert "usage: vllm-build" in said.err


def test_statuses_are_in_the_help_and_in_the_docs(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown, page = capsys.readouterr().out, (root / "docs" / "build.md").read_text(encoding="utf-8")
    table = "\n".join(f"| {status} | {meaning} |" for status, meaning in errors.statuses())
    assert table in page
    assert all(meaning in shown for _, meaning in errors.statuses())
    assert all(meaning for _, meaning in errors.statuses())


def vllm_build(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vllm_build", *words],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,
    )


def test_a_reader_that_goes_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = vllm_build("settings", "--json", stdout=pipe)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_an_answer_that_cannot_be_written() -> None:
    with Path("/dev/full").open("wb") as full:
        done = vllm_build("settings", "--json", stdout=full)
    assert done.returncode == errors.ResourceError.exit_code
    assert done.stderr.startswith("error: the answer cannot be written: No space left on device")
    assert "Traceback" not in done.stderr


def test_unknown_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["render", "nosuch"]) == errors.ConfigurationError.exit_code
    assert "no variant 'nosuch'" in capsys.readouterr().err


def test_unknown_channel(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["render", "cpu", "--channel", "nosuch"]) == errors.ConfigurationError.exit_code
    assert "CHANNEL" in capsys.readouterr().err


def test_render_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["render", "cpu", "--channel", "conda-forge", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [output["name"] for output in document["cpu"]] == ["vllm-kernels", "vllm"]


def test_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [extension["name"] for extension in document["extensions"]] == ["vllm._C"]


def test_device_without_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--device", "empty"]) == errors.NothingToDoError.exit_code
    assert "compiles nothing" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [errors.VllmBuildError, *subclasses()])
def test_every_error_says_what_to_do(kind: type[errors.VllmBuildError]) -> None:
    assert kind.usual_remedy
    assert kind("it broke").document()["remedy"] == kind.usual_remedy
    assert kind("it broke", remedy="").remedy == kind.usual_remedy
    assert kind("it broke", remedy="mend it").remedy == "mend it"
    assert f"to do:    {kind.usual_remedy}" in str(kind("it broke"))


def test_each_kind_of_error_has_a_remedy_of_its_own() -> None:
    remedies = [kind.usual_remedy for kind in subclasses()]
    assert len(set(remedies)) == len(remedies)
    assert errors.VllmBuildError.usual_remedy not in remedies


def test_publishing_to_a_link_that_leads_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    store.symlink_to("nowhere")
    (tmp_path / "built").mkdir()
    assert (
        cli.main(["publish", "--store", str(store), str(tmp_path / "built"), "--json"])
        == errors.ConfigurationError.exit_code
    )
    document = json.loads(capsys.readouterr().out)
    assert f"{store} is a symbolic link to nowhere, which does not exist" in document["message"]
    assert "--store" in document["remedy"]
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["nosuch.whl", "nosuch.txt", "."])
def test_what_cannot_be_published_has_a_remedy(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["publish", "--store", str(tmp_path / "store"), str(tmp_path / name), "--json"]
    assert cli.main(words) in {
        kind.exit_code
        for kind in (errors.ConfigurationError, errors.IntegrityError, errors.FetchError)
    }
    assert json.loads(capsys.readouterr().out)["remedy"]
