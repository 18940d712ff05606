# SPDX-License-Identifier: Apache-2.0
"""The private apt: the settings that it takes from the machine, and its handling of apt's answers.

Scripts on PATH replace apt's programs.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_build.toolchain import apt, debian_index, debian_suites
from vllm_build.toolchain.apt import PrivateApt
from vllm_build.toolchain.locked_files import Fetcher
from vllm_build.util.errors import FetchError, ResourceError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_build.util.console import Console


def test_the_mirror_is_the_first_with_a_base_suite() -> None:
    targets = (
        "http://security.example/debian-security/|bookworm-security|main\n"
        "cdrom://Debian/|bookworm|main\n"
        "http://vendor.example/apt/|cloud|main\n"
        "http://mirror.example/debian/|bookworm|contrib\n"
        "http://mirror.example/debian/|bookworm|main\n"
        "http://second.example/debian/|trixie|main\n"
    )
    assert apt.choose_mirror(targets) == "http://mirror.example/debian"
    assert apt.choose_mirror("http://archive.example/ubuntu/|noble|main\n") is None
    assert apt.choose_mirror("") is None
    assert apt.choose_mirror(targets, security=True) == "http://security.example/debian-security"
    old = "http://security.example/|buster/updates|main\n"
    assert apt.choose_mirror(old, security=True) == "http://security.example"
    assert (
        apt.choose_mirror("http://m.example/debian|bookworm-updates|main\n", security=True) is None
    )


@given(st.text())
def test_any_list_of_targets_is_read(text: str) -> None:
    mirror = apt.choose_mirror(text)
    assert mirror is None or mirror in text


def test_keys_of_both_formats() -> None:
    deb822 = (
        "Types: deb\nURIs: http://other.example/x\nSigned-By: /other.gpg\n\nTypes: deb\n"
        "URIs: http://m.example/debian\nSigned-By: /k.gpg\n"
    )
    assert apt.choose_keys(deb822, "http://m.example/debian") == "/k.gpg"
    one_line = (
        "deb http://x.example/debian a main\ndeb [arch=amd64 signed-by=/one.gpg] "
        "http://m.example/debian/ bookworm main\n"
    )
    assert apt.choose_keys(one_line, "http://m.example/debian") == "/one.gpg"
    assert (
        apt.choose_keys("deb http://m.example/debian bookworm main\n", "http://m.example/debian")
        is None
    )
    inline = "URIs: http://m.example/debian\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
    assert apt.choose_keys(inline, "http://m.example/debian") is None


def test_only_transport_settings_are_taken_from_the_machine() -> None:
    dump = (
        'APT "";\nAPT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";\n'
        'Dir::Cache "var/cache/apt";\n'
        'Acquire "";\nAcquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::https::CaInfo "/etc/ca.pem";\n'
        'Acquire::Languages "en";\nAcquire::IndexTargets::deb::Packages::MetaKey "x";\n'
        'Acquire::Retries "3";\n'
    )
    assert apt.transport_settings(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::CaInfo "/etc/ca.pem";',
        'Acquire::Retries "3";',
    ]


def test_paragraphs() -> None:
    text = (
        "Package: a\nDepends: b,\n c\nSize: 1\n\n\nPackage: b\nChecksums-Sha256:\n 00 1 x.dsc\n"
        " 11 2 y.tar.xz\n"
    )
    first, second = debian_index.paragraphs(text)
    assert first == {"Package": "a", "Depends": "b,\nc", "Size": "1"}
    assert second["Checksums-Sha256"].split() == ["00", "1", "x.dsc", "11", "2", "y.tar.xz"]
    assert debian_index.paragraphs("") == []


@given(st.text())
def test_any_text_is_paragraphs(text: str) -> None:
    assert all(paragraph for paragraph in debian_index.paragraphs(text))


@pytest.mark.skipif(
    shutil.which("dpkg") is None,
    reason="Debian versions are compared by dpkg, which is where apt is",
)
def test_the_newest_version_of_a_suite_comes_first() -> None:
    madison = (
        " gcc-12 | 12.2.0-14 | http://m.example/debian bookworm/main Sources\n"
        " gcc-12 | 12.2.0-14+deb12u1 | http://m.example/debian bookworm/main Sources\n"
        " gcc-12 | 12.4.0-5 | http://m.example/debian trixie/main Sources\n"
        "nonsense\n"
    )
    assert debian_index.suite_versions(madison, "bookworm") == ["12.2.0-14+deb12u1", "12.2.0-14"]
    assert debian_index.suite_versions(madison, "trixie") == ["12.4.0-5"]
    assert debian_index.suite_versions(madison, "bullseye") == []


# The machine's apt: indextargets names a mirror, and config has a proxy. FAKE_* variables control
# "download" and "update".
FAKE_APT_GET = r"""#!/bin/sh
echo "$@" >> "$FAKE_LOG"
case "$*" in
indextargets*) printf '%s|%s|main\n' "$FAKE_MIRROR" "${FAKE_SUITE:-bookworm}" ;;
*update*)
    [ -z "$FAKE_UPDATE_ERROR" ] || { echo "$FAKE_UPDATE_ERROR" >&2; exit 100; }
    for suite in bullseye bookworm trixie; do
        touch "$FAKE_LISTS/m_debian_dists_${suite}_main_source_Sources" \
            "$FAKE_LISTS/m_debian_dists_${suite}_main_binary-amd64_Packages"
    done ;;
*download*)
    if [ -n "$FAKE_DOWNLOAD_ERROR" ] && ! { [ -n "$FAKE_ONCE" ] && [ -e "$FAKE_ONCE" ]; }; then
        [ -z "$FAKE_ONCE" ] || touch "$FAKE_ONCE"
        echo "$FAKE_DOWNLOAD_ERROR" >&2; exit 100
    fi
    echo content > arrived.deb ;;
esac
"""
FAKE_APT_CONFIG = """#!/bin/sh
case "$1" in
dump) echo 'Acquire::http::Proxy "http://proxy.example:3128";' ;;
shell) echo "F='/nonexistent/sources.list'"; echo "D='/nonexistent/'" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("apt-get", FAKE_APT_GET),
        ("apt-config", FAKE_APT_CONFIG),
        ("apt-cache", "#!/bin/sh\n"),
        ("dpkg-deb", "#!/bin/sh\n"),
    ):
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_MIRROR", "http://m.example/debian/")
    monkeypatch.setenv("FAKE_LISTS", str(tmp_path / "apt" / "lists"))
    for name in ("FAKE_UPDATE_ERROR", "FAKE_DOWNLOAD_ERROR", "FAKE_ONCE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def private(machine: Path, console: Console) -> PrivateApt:
    return PrivateApt(machine / "apt", console, os.environ)


def calls(machine: Path, word: str) -> int:
    return sum(
        word in line.split() for line in (machine / "log").read_text(encoding="utf-8").splitlines()
    )


def test_the_private_state_is_its_own(machine: Path, console: Console) -> None:
    apt_ = private(machine, console)
    apt_.prepare()
    config = (machine / "apt" / "apt.conf").read_text(encoding="utf-8")
    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in config
    assert f'Dir::State::lists "{machine}/apt/lists";' in config
    sources = (machine / "apt" / "sources.list").read_text(encoding="utf-8").splitlines()
    assert len(sources) == 6
    assert all("http://m.example/debian" in line and line.endswith(" main") for line in sources)
    assert not any("security" in line for line in sources)
    assert apt_.environment()["APT_CONFIG"] == str(machine / "apt" / "apt.conf")


def test_a_component_has_a_state_of_its_own(machine: Path, console: Console) -> None:
    fetcher = Fetcher(machine / "cache", console, os.environ)
    main, other = fetcher.apt(), fetcher.apt(debian_suites.find_group("trixie/non-free"))
    assert fetcher.apt() is main
    assert (main.folder.name, other.folder.name) == ("apt", "apt-non-free")
    for apt_, ending in ((main, " main"), (other, " non-free")):
        sources = (apt_.folder / "sources.list").read_text(encoding="utf-8").splitlines()
        assert all(line.endswith(ending) for line in sources)


def test_a_suite_that_replaces_versions_has_lists_of_its_own(
    machine: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher = Fetcher(machine / "cache", console, os.environ)
    fetcher.apt(debian_suites.find_group("experimental"))
    text = (machine / "cache" / "apt-experimental" / "sources.list").read_text(encoding="utf-8")
    assert [line.split("] ")[1] for line in text.splitlines()] == [
        "http://m.example/debian experimental main"
    ] * 2
    # Security updates are in an archive of their own, which this machine does not name.
    with pytest.raises(ToolchainError, match="names no Debian security archive") as caught:
        fetcher.apt(debian_suites.find_group("bookworm-security"))
    assert "bookworm-security" in str(caught.value.expected)
    monkeypatch.setenv("FAKE_SUITE", "trixie-security")
    group = debian_suites.find_group("bookworm-security")
    text = (fetcher.apt(group).folder / "sources.list").read_text(encoding="utf-8")
    assert all(line.endswith("/debian bookworm-security main") for line in text.splitlines())


def test_lists_are_read_once_and_again_for_another_mirror(
    machine: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        apt_ = private(machine, console)
        apt_.prepare()
        apt_.refresh()
    assert calls(machine, "update") == 1
    monkeypatch.setenv("FAKE_MIRROR", "http://other.example/debian/")
    apt_ = private(machine, console)
    apt_.prepare()
    apt_.refresh()
    assert calls(machine, "update") == 2


def test_a_download(machine: Path, console: Console) -> None:
    apt_ = private(machine, console)
    apt_.prepare()
    apt_.download([("libgcc-s1", "12.2.0-14")], machine)
    assert (machine / "arrived.deb").is_file()
    assert "download libgcc-s1=12.2.0-14" in (machine / "log").read_text(encoding="utf-8")


def test_the_error_for_a_missing_version_names_the_update(
    machine: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DOWNLOAD_ERROR", "E: Version '1.0' for 'libgcc-s1' was not found")
    apt_ = private(machine, console)
    apt_.prepare()
    with pytest.raises(FetchError, match=r"no longer has") as caught:
        apt_.download([("libgcc-s1", "1.0")], machine)
    assert "vllm-build toolchain --update" in str(caught.value)
    assert "libgcc-s1=1.0" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        "E: Version '2' for 'a' was not found",
        "E: Failed to fetch http://m.example/x  404  Not Found",
    ],
)
def test_old_lists_are_refreshed_before_an_error(
    machine: Path, console: Console, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    first = private(machine, console)
    first.prepare()
    first.refresh()
    monkeypatch.setenv("FAKE_DOWNLOAD_ERROR", error)
    monkeypatch.setenv("FAKE_ONCE", str(machine / "once"))
    second = private(machine, console)
    second.download([("a", "2")], machine)
    assert calls(machine, "update") == 2
    assert calls(machine, "download") == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("E: Failed to fetch http://m.example/x  Could not connect to m.example:80", FetchError),
        ("E: Failed to fetch http://m.example/x  404  Not Found", FetchError),
        ("E: Write error - write (28: No space left on device)", ResourceError),
    ],
)
@pytest.mark.parametrize("when", ["UPDATE", "DOWNLOAD"])
def test_a_failing_mirror(
    machine: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    error: str,
    kind: type[Exception],
) -> None:
    monkeypatch.setenv(f"FAKE_{when}_ERROR", error)
    apt_ = private(machine, console)
    apt_.prepare()
    with pytest.raises(kind) as caught:
        apt_.download([("a", "2")], machine)
    assert "no longer has" not in str(caught.value)


def test_a_machine_without_apt_is_sent_to_conda_forge(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError) as caught:
        PrivateApt(tmp_path / "apt", console, os.environ).prepare()
    assert "apt-get" in caught.value.message
    assert "CHANNEL=conda-forge" in str(caught.value)


def test_a_machine_without_a_debian_mirror(
    machine: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MIRROR", "cdrom://Debian/")
    with pytest.raises(ToolchainError, match="no Debian mirror"):
        private(machine, console).prepare()
