# SPDX-License-Identifier: Apache-2.0
"""Real packages of everything that the engine imports, installed with the engine.

``make test`` looks at the environment of the CPU packages. ``make test-full`` does the same with
the channel's newest interpreter, which needs other compiled packages and another torch (575 MB to
download).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from full_suite import full_only
from package_runs import (  # noqa: F401 -- fixtures
    ROOT,
    Done,
    built_fixture,
    output_fixture,
)

from vllm_build.checks import elf
from vllm_build.conda import needed_builds, package_channel, package_request, variants
from vllm_build.conda.environments import conda_environment
from vllm_build.settings.build_settings import Settings
from vllm_build.toolchain import channel_build, wheel_libraries, wheel_metadata, wheel_table
from vllm_build.util.console import Console

pytestmark = pytest.mark.slow
TABLE = wheel_table.read(ROOT)
ENGINE = {wheel.name: wheel for wheel in TABLE.wheels if wheel.on_request}
OLDEST, *NEWER = TABLE.pythons
#: Imports every module of the list on the command line, and prints the errors and the version.
IMPORT = """
import importlib, json, platform, sys
failed = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
print(json.dumps({"python": platform.python_version(), "failed": failed}))
"""


@dataclass(frozen=True)
class Environment:
    """An environment with ``vllm`` and everything that it requires."""

    prefix: Path
    python: str

    @functools.cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The records of the installed packages, by name."""
        paths = sorted((self.prefix / "conda-meta").glob("*.json"))
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return {record["name"]: record for record in found}

    @property
    def site(self) -> str:
        return f"lib/python{self.python}/site-packages/"

    def run(self, *command: str) -> str:
        return conda_environment.run_in(
            self.prefix,
            list(command),
            cwd=self.prefix,
            inherited=os.environ,
            extra={"HF_HUB_OFFLINE": "1"},
        )

    def libraries(self, name: str) -> dict[str, elf.SharedLibrary]:
        """The shared libraries and programs of a package, by path."""
        files = [file for file in self.records[name]["files"] if not file.endswith((".py", ".pyc"))]
        paths = {file: self.prefix / file for file in files}
        return {
            file: elf.read(path)
            for file, path in paths.items()
            if path.is_file() and elf.is_elf(path)
        }

    def required(self, name: str) -> set[str]:
        """The names of the packages that a package requires, also indirectly."""
        found, stack = set[str](), [name]
        while stack:
            for text in self.records[stack.pop()]["depends"]:
                other = text.split()[0]
                if other in self.records and other not in found:
                    found.add(other)
                    stack.append(other)
        return found


def newer(python: str, built: Done, output: Path, prefix: Path) -> Environment:
    """Install the packages of ``built`` with an interpreter that is not the one of their build."""
    cpu = variants.load(ROOT, "cpu")
    variant = dataclasses.replace(cpu, values={**cpu.values, "python": python})
    settings = Settings.from_environ(os.environ)
    request = package_request.Request(ROOT, variant, package_channel.LOCAL, output, settings)
    ids = needed_builds.toolchain_builds(request)
    assert f"pytorch-{python}" in ids
    url = channel_build.ensure(ROOT, Console(), ids, inherited=os.environ).url
    files = [Path(entry["path"]).name.removesuffix(".conda") for entry in built.result["packages"]]
    specs = ["{} =={} {}".format(*file.rsplit("-", 2)) for file in files]
    conda_environment.create(prefix, [*specs, f"python {python}.*"], [output.as_uri(), url])
    return Environment(prefix, python)


@pytest.fixture(
    scope="module", params=[OLDEST, *(pytest.param(python, marks=full_only) for python in NEWER)]
)
def environment(
    request: pytest.FixtureRequest,
    built: Done,
    output: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Environment:
    if request.param == OLDEST:
        return Environment(Path(built.result["prefix"]), OLDEST)
    prefix = tmp_path_factory.mktemp(f"engine-{request.param}") / "env"
    return newer(request.param, built, output, prefix)


def test_every_line_is_installed(environment: Environment) -> None:
    versions = {name: environment.records[name]["version"] for name in ENGINE}
    assert versions == {name: wheel.version for name, wheel in ENGINE.items()}
    # The installer writes the programs, also those of wheels for the platform.
    assert (environment.prefix / "bin" / "watchfiles").is_file()
    assert environment.run("uvicorn", "--version").startswith("Running uvicorn ")


def test_every_module_can_be_imported(environment: Environment) -> None:
    modules = {
        name: wheel_metadata.modules(
            file.removeprefix(environment.site)
            for file in environment.records[name]["files"]
            if file.startswith(environment.site)
        )
        for name in ENGINE
    }
    assert [name for name, found in modules.items() if not found] == []
    listed = sorted({module for found in modules.values() for module in found})
    said = json.loads(environment.run("python", "-c", IMPORT, json.dumps(listed)).splitlines()[-1])
    assert said["python"].startswith(f"{environment.python}.")
    assert said["failed"] == {}


def test_every_package_has_its_license(environment: Environment) -> None:
    without = []
    for name in ENGINE:
        package = Path(environment.records[name]["extracted_package_dir"])
        assert (package / "info" / "index.json").is_file()
        about = json.loads((package / "info" / "about.json").read_text(encoding="utf-8"))
        texts = [path for path in (package / "info" / "licenses").rglob("*") if path.is_file()]
        if not about["license"] or not texts or not all(path.stat().st_size for path in texts):
            without.append(name)
    assert without == []


def test_every_library_is_in_a_required_package(environment: Environment) -> None:
    owners: dict[str, set[str]] = {}
    for name, record in environment.records.items():
        for file in record["files"]:
            owners.setdefault(file.rpartition("/")[2], set()).add(name)
    looked_at, undeclared = 0, []
    for name in ENGINE:
        usable = {name} | environment.required(name)
        for file, library in environment.libraries(name).items():
            looked_at += 1
            undeclared += [
                f"{file} needs {needed}"
                for needed in library.needed
                if not wheel_libraries.is_glibc(needed) and not owners.get(needed, set()) & usable
            ]
    assert looked_at > len(ENGINE) // 2
    assert undeclared == []


@full_only
@pytest.mark.parametrize("environment", NEWER, indirect=True)
def test_the_engine_generates_with_a_newer_interpreter(environment: Environment) -> None:
    said = environment.run("python", str(ROOT / "recipe" / "vllm" / "test_engine.py"))
    assert any(line.startswith("vllm ") for line in said.splitlines()), said[-3000:]
