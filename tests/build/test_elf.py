# SPDX-License-Identifier: Apache-2.0
"""The ELF reader, compared with another reader, and with damaged files."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
import zstandard
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_build.checks import elf
from vllm_build.util.errors import BuildError

(LIBRARY,) = Path(zstandard.__file__).parent.glob("backend_c.*.so")
CONTENT = LIBRARY.read_bytes()


def test_agrees_with_an_independent_reader() -> None:
    found = elf.read(LIBRARY)
    with LIBRARY.open("rb") as stream:
        file = ELFFile(stream)
        dynamic = list(file.get_section_by_name(".dynamic").iter_tags())
        assert list(found.needed) == [
            tag.needed for tag in dynamic if tag.entry.d_tag == "DT_NEEDED"
        ]
        assert [found.soname] == (
            [tag.soname for tag in dynamic if tag.entry.d_tag == "DT_SONAME"] or [""]
        )
        symbols = [
            s
            for s in file.get_section_by_name(".dynsym").iter_symbols()
            if s["st_shndx"] == "SHN_UNDEF" and s.name
        ]
        assert [s.name for s in found.undefined] == sorted(s.name for s in symbols)
        assert {s.name for s in found.undefined if s.weak} == {
            s.name for s in symbols if s["st_info"]["bind"] == "STB_WEAK"
        }
        (versions,) = (
            section for section in file.iter_sections() if isinstance(section, GNUVerNeedSection)
        )
        wanted = {
            (needed.name, auxiliary.name)
            for needed, auxiliaries in versions.iter_versions()
            for auxiliary in auxiliaries
        }
        assert set(found.versions) == wanted
        assert (
            found.comment.encode()
            == file.get_section_by_name(".comment").data().replace(b"\0", b" ").strip()
        )
    assert {(s.library, s.version) for s in found.undefined if s.version} == set(found.versions)


def test_is_elf(tmp_path: Path) -> None:
    assert elf.is_elf(LIBRARY)
    (tmp_path / "mach-o").write_bytes(b"\xcf\xfa\xed\xfe" + bytes(100))
    assert not elf.is_elf(tmp_path / "mach-o")
    (tmp_path / "empty").touch()
    assert not elf.is_elf(tmp_path / "empty")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF",
        b"MZ" + bytes(100),
        CONTENT[:64],
        CONTENT[:5000],
        b"\x7fELF\x01\x01" + CONTENT[6:],
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.so"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=r"damaged\.so is not a valid library"):
        elf.read(path)


@pytest.mark.parametrize("place", [47, 0x28, 0x3A, 0x3E])
def test_offsets_and_sizes_beyond_everything(tmp_path: Path, place: int) -> None:
    data = bytearray(CONTENT)
    data[place] = 255
    path = tmp_path / "beyond.so"
    path.write_bytes(bytes(data))
    with pytest.raises(BuildError, match=r"beyond\.so"):
        elf.read(path)


def test_a_count_of_versions_that_is_not_believed(tmp_path: Path) -> None:
    """The number of entries is four thousand million, but their chain is much shorter."""
    with LIBRARY.open("rb") as stream:
        file = ELFFile(stream)
        number = file.get_section_by_name(".gnu.version_r")
        index = next(
            i for i, section in enumerate(file.iter_sections()) if section.name == number.name
        )
        place = file["e_shoff"] + index * file["e_shentsize"] + 0x2C
    data = bytearray(CONTENT)
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "many.so"
    path.write_bytes(bytes(data))
    assert elf.read(path).versions == elf.read(LIBRARY).versions


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    places=st.lists(
        st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=8
    ),
    region=st.sampled_from(["headers", "sections"]),
)
def test_whatever_the_bytes_an_answer_or_a_build_error(
    tmp_path: Path, places: list[tuple[int, int]], region: str
) -> None:
    """Half of the damage is in headers and section headers, which contain lengths and offsets."""
    data = bytearray(CONTENT)
    for place, value in places:
        data[place % 64 if region == "headers" else -1 - place % 3000] = value
    path = tmp_path / "fuzzed.so"
    path.write_bytes(bytes(data))
    with contextlib.suppress(BuildError):
        elf.read(path)


def test_sections_that_are_not_there(tmp_path: Path) -> None:
    """An object file has no dynamic section, so it needs nothing."""
    path = Path(shutil.copy(LIBRARY, tmp_path / "none.so"))
    data = bytearray(path.read_bytes())
    data[0x3C:0x3E] = (0).to_bytes(2, "little")
    path.write_bytes(bytes(data))
    assert elf.read(path) == elf.SharedLibrary((), "", (), (), (), "")
