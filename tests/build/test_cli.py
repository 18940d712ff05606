# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
from typing import NoReturn

import pytest

from vllm_build import cli, errors
from vllm_build.commands import doctor


def subclasses() -> list[type[errors.VllmBuildError]]:
    return errors.VllmBuildError.__subclasses__()


def test_each_failure_kind_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in subclasses()]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert errors.EXIT_INTERRUPTED not in codes


def failing(error: BaseException) -> object:
    def command(*_: object) -> NoReturn:
        raise error

    return command


@pytest.mark.parametrize("kind", subclasses())
def test_errors_end_with_their_code_and_no_traceback(
    kind: type[errors.VllmBuildError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "run", failing(kind("it broke", expected="whole", remedy="mend it")))
    assert cli.main(["doctor"]) == kind.exit_code
    said = capsys.readouterr()
    assert not said.out
    assert "it broke" in said.err
    assert "mend it" in said.err
    assert "Traceback" not in said.err


def test_verbose_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "run", failing(errors.FetchError("gone")))
    assert cli.main(["doctor", "-v"]) == errors.FetchError.exit_code
    assert "Traceback" in capsys.readouterr().err


def test_json_carries_the_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "run", failing(errors.IntegrityError("wrong bytes", remedy="fetch again")))
    assert cli.main(["doctor", "--json"]) == errors.IntegrityError.exit_code
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == "IntegrityError"
    assert document["remedy"] == "fetch again"


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "run", failing(KeyboardInterrupt()))
    assert cli.main(["doctor"]) == errors.EXIT_INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def test_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "run", failing(OSError(errno.ENOSPC, "No space left on device")))
    assert cli.main(["doctor"]) == errors.ResourceError.exit_code
    assert "No space left" in capsys.readouterr().err


def test_other_os_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", failing(OSError(errno.EIO, "I/O error")))
    with pytest.raises(OSError, match="I/O error"):
        cli.main(["doctor"])


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
