# SPDX-License-Identifier: Apache-2.0
"""The secrets in a text are hidden, and all output passes through the function that hides them."""

from __future__ import annotations

import ast
import io
import json
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build import cli
from vllm_build.commands.explain import settings
from vllm_build.native import logged_process
from vllm_build.project import build_info
from vllm_build.reuse.records.refusal import RefusedError
from vllm_build.reuse.stores.signed_statement import Statement, verify
from vllm_build.reuse.stores.signer_keys import PublicKey
from vllm_build.target.toolkits import toolkit_search
from vllm_build.util import redaction
from vllm_build.util.console import Console
from vllm_build.util.errors import ConfigurationError, ToolchainError, VllmBuildError
from vllm_build.util.redaction import redact

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "pa55w0rd"  # noqa: S105 - it is looked for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pa55w0rd@host/simple", "https://user:***@host/simple"),
        (
            "see http://user:pa55w0rd@host:8080/x, and http://b:pa55w0rd@c",
            "see http://user:***@host:8080/x, and http://b:***@c",
        ),
        ("https://user:pa55w0rd%40x@host/", "https://user:***@host/"),
        # Invalid because it is not percent-encoded, but people write it.
        ("https://user:pa55w0rd@@host/", "https://user:***@host/"),
        ("https://user:pa55/w0rd@host/x", "https://user:***@host/x"),
        ("https://user:pa55?w0rd#x@host/x", "https://user:***@host/x"),
        # A token in place of a user.
        ("https://pa55w0rd@host/x", "https://***@host/x"),
        ("https://:pa55w0rd@host/x", "https://:***@host/x"),
        ("git+https://oauth2:pa55w0rd@host/x.git", "git+https://oauth2:***@host/x.git"),
        ("socks5h://u:pa55w0rd@proxy:1080", "socks5h://u:***@proxy:1080"),
        ("ssh://git:pa55w0rd@host/x", "ssh://git:***@host/x"),
        # Digits of other scripts are not a port.
        ("https://user:\u0661\u0662/x@host/", "https://user:***@host/"),
        # Without a scheme.
        ("user:pa55w0rd@host/x", "user:***@host/x"),
        (
            "proxy is user:pa55w0rd@proxy.example:3128, or u:pa55w0rd@10.0.0.1",
            "proxy is user:***@proxy.example:3128, or u:***@10.0.0.1",
        ),
        ("'user:pa55w0rd@[::1]:80'", "'user:***@[::1]:80'"),
        ("//user:pa55:w0rd@host", "//user:***@host"),
        ("HTTPS_PROXY=user%40firm:p@55w0rd@host", "HTTPS_PROXY=user%40firm:***@host"),
        ("no store at user:pa55w0rd@my_host/x", "no store at user:***@my_host/x"),
        # Parameters.
        ("https://h/x.whl?token=pa55w0rd", "https://h/x.whl?token=***"),
        ("https://h/x?a=1&X-Amz-Signature=pa55w0rd&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?sv=1&sig=pa55w0rd%3D#part", "https://h/x?sv=1&sig=***#part"),
        (
            "https://h/x?X-Amz-Credential=pa55w0rd&AWSAccessKeyId=pa55w0rd",
            "https://h/x?X-Amz-Credential=***&AWSAccessKeyId=***",
        ),
        (
            "https://h/x?private_token=pa55w0rd;api_key=pa55w0rd",
            "https://h/x?private_token=***;api_key=***",
        ),
        # Conda's.
        ("https://host/t/pa55w0rd/channel/linux-64", "https://host/t/***/channel/linux-64"),
        ("https://host/conda/t/pa55w0rd/channel", "https://host/conda/t/***/channel"),
        # Definitions of CMake and compilers.
        ("-DAPI_TOKEN=pa55w0rd -DX=1", "-DAPI_TOKEN=*** -DX=1"),
        ("cmake -DDB_PASSWORD:STRING=pa55w0rd;x", "cmake -DDB_PASSWORD:STRING=***;x"),
        ("-D MY_SECRET_KEY='pa55 w0rd' y", "-D MY_SECRET_KEY=*** y"),
        ('-DKEY_PASSWORD=\\"pa55w0rd\\" -O2', "-DKEY_PASSWORD=*** -O2"),
        ("-DKEY_PASSWORD=***, -DX_TOKEN=a'pa55 w0rd'", "-DKEY_PASSWORD=***, -DX_TOKEN=***"),
        # Headers.
        ("Authorization: Basic pa55w0rd==", "Authorization: Basic ***"),
        ('{"Authorization": "Bearer pa55w0rd"}', '{"Authorization": "Bearer ***"}'),
        ("proxy-authorization: pa55w0rd", "proxy-authorization: ***"),
    ],
)
def test_secrets(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no address at all: user@example.org",
        "git@host:owner/project.git and git@host:owner/project@v1",
        "user@host/x and user@host:22",
        "Somebody <somebody@example.org>, mailto:somebody@example.org",
        "registry.example/name:tag@sha256:0123 and docker.io/name:1.0@sha512:0123",
        "libc.so.6:memcpy@GLIBC_2.14 and memcpy@@GLIBC_2.14",
        "/opt/x:/opt/y@2/lib, x.cc:12:5: a@b",
        "-Wl,-rpath,@loader_path/x",
        "https://host:8080/a/user@example/b",
        "https://host/pkg@1.0/x.whl#sha256=abc",
        "git+ssh://git@host/owner/project.git",
        "file:///t/folder/x and /tmp/t/folder",
        "https://host/x?page=2&size=10",
        "-DCMAKE_PREFIX_PATH=/opt/x:/opt/y",
        "-DTOKENS -DVLLM_PLAN=/b/plan.json --output=token",
        "vllm @ file:///folder",
        "a = b ? token : sig",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=20).map(
        lambda text: "5" + text + "5"
    ),
    st.sampled_from(
        [
            "http://user:{}@host/path",
            "see 'https://u:{}@h:8080/p' (x)",
            "https://h/p?x=1&token={}",
            "ftp://{}@host",
        ]
    ),
)
def test_an_encoded_secret_never_stays(secret: str, template: str) -> None:
    encoded = quote(secret, safe="")
    said = redact(template.format(encoded))
    assert encoded not in said.replace("https", "").replace("8080", "")
    assert redact(said) == said
    assert redaction.HIDDEN in said


@pytest.mark.parametrize("before", range(0, 40, 3))
@pytest.mark.parametrize("address", ["https://user:{}@host/x", "user:{}@host/x", "-DAPI_TOKEN={}"])
@pytest.mark.parametrize("end", [False, True])
def test_an_excerpt_has_no_part_of_a_secret(address: str, before: int, *, end: bool) -> None:
    secret = "5ecret" * 10
    text = "-" * before + " " + address.format(secret) + " " + "-" * (40 - before)
    said = redaction.excerpt(text, 40, end=end)
    assert "5ecret" not in said
    assert "5" not in said
    assert len(said) == 41
    assert said.startswith("…") if end else said.endswith("…")


@pytest.mark.parametrize("end", [False, True])
def test_a_short_text_is_its_excerpt(*, end: bool) -> None:
    assert redaction.excerpt("x" * 200, end=end) == "x" * 200


ADDRESS = f"https://user:{SECRET}@host/x"


def test_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    consoles = [Console(json_mode=json_mode, verbose=True) for json_mode in (False, True)]
    for console in consoles:
        for say in (console.info, console.detail, console.warn, console.error, console.output):
            say(ADDRESS)
        with console.step(ADDRESS), console.progress(1, ADDRESS) as bar, console.transfer(ADDRESS):
            bar.advance()
        console.table("t", ["a"], [[ADDRESS]])
        console.json({ADDRESS: [ADDRESS, {"a": (ADDRESS, 1, None)}]})
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "https://user:***@host/x" in said.out
    assert "https://user:***@host/x" in said.err
    assert not [title for console in consoles for title in console.seconds if SECRET in title]


def test_errors() -> None:
    error = VllmBuildError(ADDRESS, expected=ADDRESS, remedy=ADDRESS)
    assert SECRET not in "".join(
        [str(error), repr(error), *map(str, vars(error).values()), *map(str, error.args)]
    )
    assert str(error).count("user:***@host") == 3


def test_tracebacks_of_causes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``-v`` also shows errors of other libraries, which do not redact their messages."""

    def fail(*_: Any) -> int:
        try:
            raise OSError(f"cannot reach {ADDRESS}")  # noqa: TRY301 - the cause under test
        except OSError as error:
            raise ConfigurationError("it failed") from error

    monkeypatch.setattr(settings, "run", fail)
    assert cli.main(["settings", "-v"]) == ConfigurationError.exit_code
    said = capsys.readouterr().err
    assert "cannot reach https://user:***@host/x" in said
    assert SECRET not in said


def test_logs_of_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CMake may print addresses from its arguments or the environment."""
    code = f"print('-- fetching {ADDRESS}')"
    output = logged_process.run(
        [sys.executable, "-c", code, ADDRESS],
        cwd=tmp_path,
        env={},
        what="it",
        log=tmp_path / "log",
        verbose=True,
    )
    assert "https://user:***@host/x" in output
    assert (
        SECRET
        not in output + (tmp_path / "log").read_text(encoding="utf-8") + capsys.readouterr().err
    )


def test_records_of_builds(tmp_path: Path) -> None:
    build_info.write(tmp_path / "record.json", {"compiler": ADDRESS}, ())
    assert (
        json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["compiler"]
        == "https://user:***@host/x"
    )


def test_say_writes_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    redaction.say(ADDRESS + "\n")
    assert stderr.getvalue() == "https://user:***@host/x\n"


#: Modules that write to the streams directly, and why no secret can get there.
_DIRECT = {
    "util/redaction.py": "it redacts",
    "util/console.py": "redacts each text",
    "native/logged_process.py": "writes redacted lines",
    "native/compile_launcher.py": "writes the name of a program; it runs a compiler",
    "entry.py": (
        "writes a document about a signal or the current folder, before the imports of others"
    ),
    "packing/rattler_child.py": (
        "writes into a file of the parent, which prints it through the console and its errors"
    ),
    "conda/environments/install_child.py": (
        "into a pipe of the parent, which puts it into an error"
    ),
    "reuse/net/reuse_context.py": "writes numbers",
}


def test_nothing_else_writes_to_the_streams(root: Path) -> None:
    library = root / "scripts" / "vllm_build"
    found = set()
    for path in library.rglob("*.py"):
        name = path.relative_to(library).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "sys.stderr.write",
                "sys.stdout.write",
                "traceback.print_exc",
            ):
                found.add(name)
    assert found <= set(_DIRECT), "say it through vllm_build.util.redaction.say or the console"


#: A digest is shortened to fewer characters than a quoted text has.
_LONGEST_NAME = 63


def _bound(node: ast.expr | None) -> int:
    try:
        return abs(int(ast.literal_eval(node))) if node is not None else 0
    except (ValueError, TypeError):
        return 0


def test_nothing_else_cuts_a_text(root: Path) -> None:
    """A text that is cut before it is redacted may keep half a secret, which no pattern finds."""
    library = root / "scripts" / "vllm_build"
    found = {
        path.relative_to(library).as_posix()
        for path in library.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Slice)
        and max(_bound(node.lower), _bound(node.upper)) > _LONGEST_NAME
    }
    assert found <= {"packing/build_paths.py"}, (
        "quote it with vllm_build.util.redaction.excerpt; that file looks into binaries"
    )


def test_a_compiler_that_quotes_a_password(tmp_path: Path) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text(
        f"#!/bin/sh\necho '{'-' * 180} https://user:{SECRET * 5}@host/x'\nexit $STATUS\n",
        encoding="utf-8",
    )
    compiler.chmod(0o755)
    for status in ("0", "1"):
        compiler.write_text(
            compiler.read_text(encoding="utf-8").replace("$STATUS", status), encoding="utf-8"
        )
        with pytest.raises(ToolchainError, match="it said: --") as caught:
            toolkit_search.ask(compiler, "release ([0-9.]+)", "CUDA_HOME")
        assert SECRET[:4] not in str(caught.value)


def test_a_statement_that_quotes_a_password() -> None:
    key = PublicKey("00" * 32)
    document = {"payloadType": "-" * 80 + f" https://user:{SECRET * 5}@host/x"}
    expected = Statement("x", "00" * 32, "kind")
    with pytest.raises(RefusedError, match="the envelope has the payload type") as caught:
        verify(json.dumps(document).encode(), expected, key, "somewhere")
    assert SECRET[:4] not in str(caught.value)
