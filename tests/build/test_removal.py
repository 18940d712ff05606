# SPDX-License-Identifier: Apache-2.0
"""The library removes only what it made, and only ``removal`` removes folders."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from vllm_build.cli import main
from vllm_build.conda import package_job
from vllm_build.reuse.net import reuse_cache
from vllm_build.util import errors, paths, removal
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

#: Functions that remove or replace files, by module.
FUNCTIONS = {
    ("shutil", "rmtree"),
    ("shutil", "move"),
    *(
        ("os", name)
        for name in (
            "remove",
            "unlink",
            "rmdir",
            "removedirs",
            "rename",
            "renames",
            "replace",
            "truncate",
        )
    ),
}
METHODS = {"unlink", "rmdir", "rename", "replace"}

#: All functions that remove or replace single files and folders with names of this library: the
#: number of such calls, and the reason why each is allowed.
ALLOWED = {
    "util.removal:_remove": (2, "all other removals: only with proof of the folder above"),
    "util.removal:temporary": (1, "made two lines before, under a unique name"),
    "util.removal:remove_claimed": (
        2,
        "the marker, if nothing else is in its folder, and that folder",
    ),
    "util.files:write_text": (2, "its own temporary file; the caller owns the target"),
    "native.unit_times:begin": (1, "a file of ours in the build folder"),
    "native.cmake_configure:run": (1, "our stamp in the claimed build folder"),
    "native.build_configuration:Configuration.prepare_folder": (
        1,
        "a probe that it has just made in a claimed folder",
    ),
    "sources.stable_inputs:link": (
        1,
        "a link of ours in the build folder; `removal` removes folders",
    ),
    "sources.stable_inputs:_write": (
        1,
        "an older copy, in a folder of ours in the build folder",
    ),
    "sources.stable_inputs:mirror": (
        2,
        "a link, and remains of older copies, in a folder of ours in the build folder",
    ),
    "sources.third_party:extract": (
        2,
        "moves a damaged folder into its own temporary folder, and the unpacked one to its name",
    ),
    "packing.channel_index:publish": (
        1,
        "renames its own temporary copy to a free name",
    ),
    "packing.normalise:normalise": (
        3,
        "its own temporary file next to the package, which the caller owns",
    ),
    "conda.engine_demo:show": (1, "a file of ours in .state of the output folder"),
    "conda.package_job:reusable": (
        1,
        "a package with our digest in its name but other bytes, in the claimed, locked output",
    ),
    "conda.package_build:build": (1, "a file of ours in .state of the output folder"),
    "conda.package_job:_install": (1, "a file of ours in .state of the output folder"),
    "conda.environments.prefix_site:Site.commit": (
        2,
        "swaps folders: the prefix is ours, or the user gave --force",
    ),
    "conda.environments.prefix_site:_folders": (1, "empty folders that it has created"),
    "conda.environments.prefix_site:_recover": (1, "reverts the swap"),
    "packing.recipe_builder:build": (
        1,
        "indexes that rattler-build writes again, in work folders that callers have emptied",
    ),
    "reuse.net.reuse_cache:Cache.find": (1, "a damaged file under its sha256 in the claimed cache"),
    "reuse.net.reuse_cache:Cache.add": (1, "renames a complete file to its sha256"),
    "reuse.net.reuse_cache:Cache.clean": (1, "files of the claimed and locked cache"),
    "reuse.net.reuse_context:Context.store": (1, "a download in a temporary folder of the cache"),
    "reuse.net.download:fetch_window": (1, "a part of a download, in the cache"),
    "reuse.net.download:fetch_whole.attempt": (1, "a part of a download, in the cache"),
    "reuse.placement:_swap": (1, "reverts the swap"),
    "reuse.placement:_move": (
        1,
        "records and libraries of builds, to and from a temporary folder of ours, under a lock",
    ),
    "reuse.stores.store_publish:Publisher.put": (
        1,
        "renames a complete file to its sha256 in the locked store",
    ),
    "reuse.net.remote_file:RemoteFile.forget": (1, "parts of a download, in the cache"),
    "reuse.net.remote_file:_copy": (1, "a part of a download, in the cache"),
    "util.locks:transient": (1, "an empty lock file, by the process that holds its lock"),
    "toolchain.channel_build:_Builder._add": (1, "renames a package into the channel"),
    "toolchain.pypi:_download": (1, "its own list in a temporary folder"),
    "toolchain.channel_records:remove_record": (
        1,
        "a record of ours in the channel of the claimed cache",
    ),
    "toolchain.download_store:Store.get": (
        1,
        "a damaged file under its sha256 in the download cache",
    ),
    "toolchain.download_store:Store.put": (
        2,
        "a download in a temporary folder, which is renamed to its sha256",
    ),
    "toolchain.channel_views:_link": (
        2,
        "its own temporary link, which is renamed to a package's name in a locked view",
    ),
    "toolchain.channel_views:clean": (
        2,
        "indexes of views, and packages without a view, in the locked channel of the claimed cache",
    ),
}


def _removes(call: ast.Call) -> bool:
    """Whether a call removes or replaces a file or folder.

    ``str.replace`` and ``dataclasses.replace`` do not.
    """
    function = call.func
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if (owner, function.attr) in FUNCTIONS:
        return True
    if function.attr not in METHODS or owner in ("os", "shutil", "dataclasses"):
        return False
    # str.replace has two arguments, datetime.replace has keywords.
    return function.attr != "replace" or (len(call.args) == 1 and not call.keywords)


def _found(tree: ast.AST, scope: tuple[str, ...] = ()) -> list[str]:
    names = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and _removes(node):
            names.append(".".join(scope))
        inner = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        names += _found(node, (*scope, node.name) if inner else scope)  # type: ignore[attr-defined]
    return names


def test_every_removal_goes_through_removal_or_has_a_reason(root: Path) -> None:
    found: Counter[str] = Counter()
    for library in (root / "scripts" / "vllm_build", root / "vllm"):
        for path in sorted(library.rglob("*.py")):
            module = ".".join(path.relative_to(library).with_suffix("").parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            imported = [
                a.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module in ("shutil", "os")
                for a in node.names
            ]
            assert not {name for _, name in FUNCTIONS} & set(imported), (
                f"{path}: call it by its module's name, or this test does not see it"
            )
            found.update(f"{module}:{name}" for name in _found(tree))
    assert dict(found) == {name: count for name, (count, _) in ALLOWED.items()}


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("shutil.rmtree(x)", 1),
        ("def f():\n    path.unlink(missing_ok=True)\n    os.replace(a, b)", 2),
        ("a.rename(b); a.replace(b)", 2),
        ("text.replace('a', 'b'); dataclasses.replace(x, y=1); when.replace(tzinfo=None)", 0),
    ],
)
def test_the_test_sees(code: str, count: int) -> None:
    assert len(_found(ast.parse(code))) == count


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    removal.claim(tmp_path / "ours", "a folder")
    return tmp_path / "ours"


def test_a_claimed_folder_gives_up_what_is_in_it(ours: Path) -> None:
    (ours / "work" / "deep").mkdir(parents=True)
    removal.remove_tree(ours / "work" / "deep", below=ours)
    removal.remove_tree(ours / "work", below=ours)
    removal.remove_tree(ours / "work", below=ours)
    (ours / "file").touch()
    removal.remove_tree(ours / "file", below=ours)
    assert [path.name for path in ours.iterdir()] == [removal.MARKER]


def test_nothing_else_is_removed(tmp_path: Path, ours: Path) -> None:
    other = tmp_path / "other"
    (other / "work").mkdir(parents=True)
    (ours / "dotdot").mkdir()
    for path, below in (
        (other / "work", other),
        (other / "work", ours),
        (ours, ours),
        (ours / "dotdot" / ".." / ".." / "other", ours),
    ):
        with pytest.raises(ConfigurationError, match="is not removed"):
            removal.remove_tree(path, below=below)
    assert (other / "work").is_dir()


@pytest.mark.parametrize(
    "text", ["", "This folder was made by a person.\n", "This folder was made by vllm-build"]
)
def test_the_marker_of_another_program_proves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / removal.MARKER).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        removal.remove_tree(tmp_path / "x", below=tmp_path)
    (tmp_path / removal.MARKER).unlink()
    (tmp_path / "mark").write_text(removal.TEXT, encoding="utf-8")
    (tmp_path / removal.MARKER).symlink_to("mark")
    assert not removal.is_ours(tmp_path)


def test_links_are_removed_and_not_followed(tmp_path: Path, ours: Path) -> None:
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)
    (ours / "link").symlink_to(target)
    with pytest.raises(ConfigurationError, match="is a link"):
        removal.remove_tree(ours / "link" / "sub", below=ours)
    removal.remove_tree(ours / "link", below=ours)
    assert not (ours / "link").is_symlink()
    (ours / "work").mkdir()
    (ours / "work" / "link").symlink_to(target)
    (ours / "dangling").symlink_to("nowhere")
    removal.remove_tree(ours / "work", below=ours)
    removal.remove_tree(ours / "dangling", below=ours)
    assert (target / "sub").is_dir()
    assert [path.name for path in ours.iterdir()] == [removal.MARKER]


def test_what_cannot_be_removed_is_an_error(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ours / "work").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(removal.shutil, "rmtree", refuse)
    with pytest.raises(PermissionError):
        removal.remove_tree(ours / "work", below=ours)


def test_claims(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is not a folder"):
        removal.claim(tmp_path / "file", "a folder")
    mixed = tmp_path / "mixed"
    (mixed / "channel").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="did not make: channel"):
        removal.claim(mixed, "a folder", ("channel",), ("channel/.lock",))
    (mixed / "channel" / ".lock").touch()
    for number in range(5):
        (mixed / f"photo{number}").touch()
    with pytest.raises(ConfigurationError, match=r"photo0, photo1, photo2 and 2 more"):
        removal.claim(mixed, "a folder", ("channel",), ("channel/.lock",))
    assert not removal.is_ours(mixed)
    removal.claim(mixed, "a folder", ("channel", "photo?"), ("channel/.lock",))
    assert removal.is_ours(mixed)
    (mixed / "more").touch()
    removal.claim(mixed, "a folder")
    assert (mixed / removal.MARKER).stat().st_mode & 0o777 == 0o644


def test_staging_of_killed_processes(tmp_path: Path) -> None:
    with removal.temporary(tmp_path / "new", ".x-") as folder:
        assert folder.parent == tmp_path / "new"
    assert not folder.exists()
    (tmp_path / ".x-left" / "deep").mkdir(parents=True)
    (tmp_path / "x-kept").mkdir()
    removal.remove_staging(tmp_path, ".x-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "x-kept"]


def test_an_output_folder_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("noarch", ".work/cpu", "env-cpu"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for command in (["package", "cpu"], ["test-package", "cpu"]):
        assert (
            main([*command, "--channel", "conda-forge", "--output", str(tmp_path / "mine")])
            == errors.ConfigurationError.exit_code
        )
        said = capsys.readouterr().err
        assert "--output" in said
        assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before
    # Earlier versions made such a folder.
    (tmp_path / "mine" / ".state").mkdir()
    package_job.claim_output(tmp_path / "mine")
    assert removal.is_ours(tmp_path / "mine")


def test_a_cache_folder_of_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    channel = tmp_path / "mine" / "channel" / "linux-64"
    channel.mkdir(parents=True)
    (channel / "precious-1.0-0.conda").touch()
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "mine"))
    for command in (["toolchain", "ninja"], ["toolchain", "--clean", "--older-than", "0"]):
        assert main(command) == errors.ConfigurationError.exit_code
        assert "VLLM_BUILD_CACHE" in capsys.readouterr().err
    assert (channel / "precious-1.0-0.conda").is_file()
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["channel"]
    assert removal.claim_cache(tmp_path / "new") == tmp_path / "new"
    monkeypatch.setenv("VLLM_BUILD_CACHE", str(tmp_path / "new"))
    assert removal.claim_cache() == paths.cache_root()


def test_cleaning_a_folder_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reuse" / "blobs").mkdir(parents=True)
    (tmp_path / "reuse" / "photo.jpg").touch()
    with pytest.raises(ConfigurationError, match=r"photo\.jpg"):
        reuse_cache.Cache(tmp_path / "reuse").clean()
    (tmp_path / "reuse" / "photo.jpg").unlink()
    (tmp_path / "reuse" / "blobs" / "x").touch()
    assert reuse_cache.Cache(tmp_path / "reuse").clean().files == 1
