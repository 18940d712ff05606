# SPDX-License-Identifier: Apache-2.0
"""Variant files: ``variants/<name>.yaml``, one combination each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vllm_build.errors import ConfigurationError
from vllm_build.files import read_text

#: Keys that the recipe reads for every accelerator. rattler-build would say "undefined value"; this says which file lacks what.
REQUIRED = (
    "accelerator",
    "c_compiler",
    "c_compiler_version",
    "cxx_compiler",
    "cxx_compiler_version",
    "c_stdlib",
    "c_stdlib_version",
    "python",
    "channel_digest",
)
#: Keys that it reads for CUDA besides.
REQUIRED_CUDA = ("cuda_compiler", "cuda_compiler_version", "cuda_arch_list")


@dataclass(frozen=True)
class Variant:
    """One variant file: its name, path, and the single value of every key."""

    name: str
    path: Path
    values: dict[str, str]

    @property
    def accelerator(self) -> str:
        """The device that the variant is for, as ``VLLM_TARGET_DEVICE`` spells it."""
        return self.values["accelerator"]

    @property
    def toolkit_version(self) -> Version | None:
        """The release of the accelerator's toolkit; None for one without."""
        release = self.values.get(f"{self.accelerator}_compiler_version")
        return None if release is None else Version(release)


def names(root: Path) -> tuple[str, ...]:
    """The variants of this tree."""
    return tuple(sorted(path.stem for path in (root / "variants").glob("*.yaml")))


def _value(path: Path, key: str, entry: Any) -> str:
    if not isinstance(entry, list) or len(entry) != 1:
        raise ConfigurationError(f"{path}: {key} has {entry!r}", expected="a list of exactly one value: one combination per file")
    if not isinstance(entry[0], str):
        raise ConfigurationError(
            f"{path}: {key} has the value {entry[0]!r} of type {type(entry[0]).__name__}",
            expected="a quoted string: 3.10 without quotes is the number 3.1",
            remedy=f'write {key}: ["{entry[0]}"]',
        )
    return str(entry[0])


def _check_version(path: Path, key: str, value: str) -> None:
    if not (key == "python" or key.endswith("_version")):
        return
    try:
        Version(value.split(" ", 1)[0].removesuffix(".*"))
    except InvalidVersion as error:
        raise ConfigurationError(
            f"{path}: {key} is {value!r}, which is not a version", expected='a version such as "12" or "3.11"'
        ) from error


def load(root: Path, name: str) -> Variant:
    """Read ``variants/<name>.yaml``; a path to a file is taken as it is.

    Raises:
        ConfigurationError: no such variant, not YAML, a key is missing, has several values, is unquoted, or is no version where one is due.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else root / "variants" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigurationError(
            f"there is no variant {name!r}", expected="one of " + ", ".join(names(root)) + ", or the path of a variant file"
        )
    try:
        document = YAML(typ="safe", pure=True).load(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{path}: {reason}", expected="a variant file, YAML in UTF-8") from error
    except YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} holds no keys", expected="a mapping of keys to lists of one quoted value")
    needed = REQUIRED + (REQUIRED_CUDA if document.get("accelerator") == ["cuda"] else ())
    missing = [key for key in needed if key not in document]
    if missing:
        raise ConfigurationError(f"{path} lacks {', '.join(missing)}", expected="every key that recipe/recipe.yaml reads")
    values = {key: _value(path, key, entry) for key, entry in document.items() if key != "zip_keys"}
    for key, value in values.items():
        _check_version(path, key, value)
    return Variant(path.stem, path, values)
