# SPDX-License-Identifier: Apache-2.0
"""Variant files, ``variants/<name>.yaml``, and files of conda-forge's ``.ci_support`` folders.

Each file has one combination of values.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from vllm_build.architectures import gpu_targets
from vllm_build.conda import variant_file
from vllm_build.kernels.kernel_records import PROVIDERS, SETS
from vllm_build.settings.choices import DEVICES
from vllm_build.util.errors import ConfigurationError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vllm_build.conda.variant_file import Entry

PLATFORM = "linux-64"
#: Keys that the recipes read for every accelerator. rattler-build's message for a missing key is
#: "undefined value"; ours names the file and the key.
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
#: More keys that they read for CUDA.
REQUIRED_CUDA = (
    *("cuda_compiler", "cuda_compiler_version", "cuda_arch_list"),
    *("flash_attention_set", "kernels", "kernel_set"),
)
#: More keys that they read for ROCm.
REQUIRED_ROCM = ("hip_compiler", "hip_compiler_version", "rocm_version", "rocm_arch_list")
_MORE = {"cuda": REQUIRED_CUDA, "rocm": REQUIRED_ROCM}
#: The key of an accelerator that has its toolkit's release.
_RELEASES = {"cuda": "cuda_compiler_version", "rocm": "rocm_version"}
#: Keys with architectures, and the accelerator that they are for.
_ARCH_LISTS = {"cuda_arch_list": "cuda", "rocm_arch_list": "rocm"}
#: Values of the keys that choose kernels.
_CHOICES = {
    "flash_attention_set": SETS["VLLM_FA_SET"],
    "kernels": PROVIDERS,
    "kernel_set": SETS["VLLM_KERNEL_SET"],
}
#: Packages that the recipes require by name alone; a key with that name selects the version.
PINS = ("libtorch", "libhwy", "setuptools", "packaging", "pip", "wheel", "cmake", "ninja", "ccache")
#: Keys that describe the file and not the package.
_ABOUT = ("zip_keys", "target_platform")
_KNOWN = (*REQUIRED, *REQUIRED_CUDA, *REQUIRED_ROCM, *PINS, *_ABOUT)
#: Keys that conda-smithy writes into every file of a feedstock's ``.ci_support``. No variant file
#: of this tree has them.
_FEEDSTOCK = ("channel_targets", "channel_sources", "docker_image", "pin_run_as_build")
#: Values for keys that a feedstock's recipe does not have.
_FEEDSTOCK_MEANS = {"channel_digest": "conda-forge"}
_FLOOR = Version("3.10")
_ALIASES = {
    "nvidia": "cuda",
    "gpu": "cuda",
    "amd": "rocm",
    "hip": "rocm",
    "intel": "xpu",
    "none": "cpu",
}
#: With a longer name, the path of the clean prefix could exceed the placeholder in packages.
_LONGEST_NAME = 48


@dataclass(frozen=True)
class Variant:
    """One variant file.

    Attributes:
        name: the name of its folders.
        path: the file.
        values: the value of every key that is used.
        notes: warnings about ignored keys and assumed values.
    """

    name: str
    path: Path
    values: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def accelerator(self) -> str:
        """The variant's device, as in ``VLLM_TARGET_DEVICE``."""
        return self.values["accelerator"]

    @property
    def toolkit_version(self) -> Version | None:
        """The release of the accelerator's toolkit; None if it has none."""
        release = self.values.get(_RELEASES.get(self.accelerator, ""))
        return None if release is None else Version(release)


def names(root: Path) -> tuple[str, ...]:
    """The variants of this tree."""
    return tuple(sorted(path.stem for path in (root / "variants").glob("*.yaml")))


def _meant(word: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.75)
    return found[0] if found else None


def _value(path: Path, key: str, entry: Entry) -> str:
    where = f"{path}:{entry.line}: {key}"
    if entry.values is None or len(entry.values) != 1:
        several = ", ".join(value.text for value in entry.values or ())
        held = (
            entry.written
            if entry.values is None
            else f"{len(entry.values)} values: {several}"
            if several
            else "no value"
        )
        raise ConfigurationError(
            f"{where} has {held} instead of a list with one value",
            expected="a list of exactly one value: one combination per file",
            remedy=f"keep one value here, and write one file for each of the others: {several}"
            if several
            else f'write {key}: ["…"]',
        )
    (value,) = entry.values
    if value.kind != "str":
        raise ConfigurationError(
            f"{where} has the value {value.text} without quotes, which YAML reads as type "
            f"{value.kind}",
            expected="a quoted string: 3.10 without quotes is the number 3.1",
            remedy=f'write {key}: ["{value.text}"]',
        )
    if not value.text.strip():
        raise ConfigurationError(f"{where} has an empty value", expected="a value")
    return value.text


def _check_version(where: str, key: str, value: str) -> None:
    if not (key == "python" or key.endswith("_version")):
        return
    try:
        version = Version(value)
    except InvalidVersion as error:
        raise ConfigurationError(
            f"{where} is {value!r}, which is not a version",
            expected='a version such as "12" or "3.11"',
        ) from error
    if key == "python" and version < _FLOOR:
        raise ConfigurationError(
            f"{where} is {value}, and packages are for Python >= {_FLOOR}",
            expected=f"Python {_FLOOR} or newer",
        )
    for device in [name for name, release in _RELEASES.items() if release == key]:
        try:
            gpu_targets.check_floor(device, version)
        except ToolchainError as error:
            raise ConfigurationError(
                f"{where}: {error.message}", expected=error.expected
            ) from error


def _check_choice(where: str, value: str, known: Iterable[str], aliases: Mapping[str, str]) -> None:
    known = tuple(known)
    if value not in known:
        meant = aliases.get(value.lower()) or _meant(value.lower(), known)
        raise ConfigurationError(
            f"{where} is {value!r}",
            expected="one of " + ", ".join(known),
            remedy=f"write {meant}" if meant else None,
        )


def _check(where: str, key: str, value: str) -> None:
    _check_version(where, key, value)
    if key == "accelerator":
        _check_choice(where, value, DEVICES, _ALIASES)
    elif key in _CHOICES:
        _check_choice(where, value, _CHOICES[key], {})
    elif key == "target_platform":
        _check_choice(where, value, (PLATFORM,), {})
    elif key in _ARCH_LISTS:
        path, _, line = where.partition(": ")[0].rpartition(":")
        try:
            gpu_targets.parse(_ARCH_LISTS[key], value, path)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{error.message} (line {line}, {key})",
                expected=error.expected,
                remedy=error.remedy,
            ) from error


def _check_keys(path: Path, entries: Mapping[str, Entry]) -> None:
    """Refuse a key that nothing reads.

    Raises:
        ConfigurationError: there is one; the message suggests a similar key.
    """
    for key, entry in entries.items():
        if key not in _KNOWN:
            meant = _meant(key.lower(), _KNOWN)
            raise ConfigurationError(
                f"{path}:{entry.line}: nothing reads the key {key!r}",
                expected="keys that the recipes read: " + ", ".join(_KNOWN),
                remedy=f"write {meant}" if meant else "leave it out",
            )


def _of_feedstock(path: Path, entries: Mapping[str, Entry]) -> tuple[dict[str, str], list[str]]:
    """The values of a feedstock's file that our recipes read, and notes about the other keys."""
    used = {key: entry for key, entry in entries.items() if key in _KNOWN and key != "zip_keys"}
    values = {key: _value(path, key, entry) for key, entry in used.items()}
    notes = []
    if ignored := sorted(key for key in entries if key not in _KNOWN):
        notes.append(f"{path}: ignored, because our recipes do not read them: {', '.join(ignored)}")
    if "python" in values:
        # `3.12.* *_cpython` is a version and a build; our recipes take the version.
        values["python"] = values["python"].split(" ", 1)[0].removesuffix(".*")
    cuda = values.get("cuda_compiler_version", "None")
    if cuda == "None":
        values = {key: value for key, value in values.items() if key not in REQUIRED_CUDA}
    assumed = {**_FEEDSTOCK_MEANS, "accelerator": "cpu" if cuda == "None" else "cuda"}
    if cuda != "None":
        _check_version(
            f"{path}:{entries['cuda_compiler_version'].line}: cuda_compiler_version",
            "cuda_compiler_version",
            cuda,
        )
        assumed |= {
            "cuda_arch_list": ";".join(gpu_targets.default("cuda", Version(cuda))),
            "flash_attention_set": "full",
            "kernels": "engine",
            "kernel_set": "full",
        }
    assumed = {key: value for key, value in assumed.items() if key not in values}
    if assumed:
        notes.append(
            f"{path}: assumed, because the file does not have them: "
            f"{', '.join(f'{key} {value}' for key, value in assumed.items())}"
        )
    return {**values, **assumed}, notes


def _name(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)
    return (
        name
        if len(name) <= _LONGEST_NAME
        else f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )


def load(root: Path, name: str) -> Variant:
    """Read ``variants/<name>.yaml``, or the file if ``name`` is a path.

    Keys that conda-smithy writes identify a file of a feedstock's ``.ci_support``. The keys that
    our recipes read are used, and ``notes`` names the others. A used key must have one value.

    Raises:
        ConfigurationError: there is no such variant; the file is not UTF-8 or not YAML; a key is
            missing, repeated or unknown; a value is missing, unquoted, invalid for its key, or one
            of several. The message names the file and the line.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else root / "variants" / f"{name}.yaml"
    if not path.is_file():
        known = names(root)
        meant = _meant(name.lower(), known)
        raise ConfigurationError(
            f"there is no variant {name!r}",
            expected="one of " + ", ".join(known) + ", or the path of a variant file",
            remedy=f"did you mean {meant}?" if meant else None,
        )
    entries = variant_file.read(path)
    notes: list[str] = []
    if "accelerator" not in entries and any(key in entries for key in _FEEDSTOCK):
        values, notes = _of_feedstock(path, entries)
    else:
        # Check the keys first: a misspelt key is the best explanation of a missing one, and the
        # accelerator decides which keys are required.
        _check_keys(path, entries)
        values = {
            key: _value(path, key, entry) for key, entry in entries.items() if key != "zip_keys"
        }
    for key, value in values.items():
        _check(
            f"{path}:{entries[key].line}: {key}" if key in entries else f"{path}: {key}", key, value
        )
    needed = REQUIRED + _MORE.get(values.get("accelerator", ""), ())
    missing = [key for key in needed if key not in values]
    if missing:
        raise ConfigurationError(
            f"{path} lacks {', '.join(missing)}", expected="every key that the recipes read"
        )
    return Variant(
        _name(path),
        path,
        {key: value for key, value in values.items() if key != "target_platform"},
        tuple(notes),
    )
