# SPDX-License-Identifier: Apache-2.0
"""Renders the recipes without building: each package's name, version, build and requirements."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rattler_build import (
    JinjaConfig,
    PlatformConfig,
    RattlerBuildError,
    RenderConfig,
    Stage0Recipe,
    VariantConfig,
)

from vllm_build.conda.variants import PLATFORM
from vllm_build.digests import digest_rules
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_build.conda.variants import Variant


@dataclass(frozen=True)
class Output:
    """One package that a build will give.

    If several builds satisfy a requirement, solvers prefer one that is not ``behind``
    (``down_prioritize_variant``), then the highest ``number``.
    """

    name: str
    version: str
    build: str
    noarch: bool
    run: tuple[str, ...]
    constrains: tuple[str, ...] = ()
    number: int = 0
    behind: bool = False

    @property
    def subdir(self) -> str:
        """The folder of the channel that the file is in."""
        return "noarch" if self.noarch else PLATFORM

    @property
    def filename(self) -> str:
        """The name of the package's file."""
        return f"{self.name}-{self.version}-{self.build}.conda"

    def as_dict(self) -> dict[str, Any]:
        """The facts for ``--json``."""
        return {**asdict(self), "subdir": self.subdir, "filename": self.filename}


def _rendered(root: Path, variant: Variant, overrides: Mapping[str, str]) -> list[dict[str, Any]]:
    platform = PlatformConfig(target_platform=PLATFORM, build_platform=PLATFORM)
    path = root / digest_rules.RECIPES
    try:
        files = [str(path / "variants.yaml")]
        config = VariantConfig.from_files_with_context(files, JinjaConfig(platform=platform))
        # The values that were read and checked, not the variant's file: rattler-build reads numbers
        # and encodings differently.
        values = {**variant.values, **overrides}
        config = config.merge(
            VariantConfig({key: [value] for key, value in values.items()}, zip_keys=config.zip_keys)
        )
        rendered = []
        for package in digest_rules.conda_packages(root):
            path = root / digest_rules.RECIPES / package / "recipe.yaml"
            recipe = Stage0Recipe.from_file(str(path))
            rendered += recipe.render(config, RenderConfig(platform=platform))
    except RattlerBuildError as error:
        raise ConfigurationError(f"{path} does not render for {variant.path}: {error}") from error
    recipes = [item.recipe.to_dict() for item in rendered]
    recipes.sort(key=lambda recipe: bool(recipe["build"].get("noarch")))
    # The bindings return skipped packages as well and hide `build.skip`, which each recipe takes
    # from its context.
    return [recipe for recipe in recipes if not recipe["context"].get("skip", False)]


def render(root: Path, variant: Variant, overrides: Mapping[str, str]) -> tuple[Output, ...]:
    """Render all recipes for one variant; ``overrides`` take precedence over the files.

    Raises:
        ConfigurationError: a recipe or the variant is not valid; the message is rattler-build's.
    """
    return tuple(_output(recipe) for recipe in _rendered(root, variant, overrides))


def required_names(root: Path, variant: Variant, overrides: Mapping[str, str]) -> frozenset[str]:
    """Names of the channel's packages that the outputs need to be built, installed and run.

    Raises:
        ConfigurationError: as ``render``.
    """
    recipes = _rendered(root, variant, overrides)
    own = {recipe["package"]["name"] for recipe in recipes}
    return _names(recipes, "build", "host", "run") - own


def build_names(
    root: Path, variant: Variant, overrides: Mapping[str, str], *, noarch: bool
) -> frozenset[str]:
    """Names of the packages that the noarch outputs, or the others, are built with.

    An output's content depends on these, and not on what it only runs with.

    Raises:
        ConfigurationError: as ``render``.
    """
    recipes = [
        recipe
        for recipe in _rendered(root, variant, overrides)
        if bool(recipe["build"].get("noarch")) == noarch
    ]
    return _names(recipes, "build", "host")


def _names(recipes: list[dict[str, Any]], *kinds: str) -> frozenset[str]:
    return frozenset(
        str(entry).split(" ", 1)[0]
        for recipe in recipes
        for kind in kinds
        for entry in recipe["requirements"].get(kind, [])
    )


def environments(
    root: Path, variant: Variant, overrides: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The specs of the build and the host environment of ``vllm-kernels``.

    Raises:
        ConfigurationError: as ``render``.
    """
    (kernels,) = (
        recipe
        for recipe in _rendered(root, variant, overrides)
        if recipe["package"]["name"] == "vllm-kernels"
    )
    build, host = (
        tuple(str(entry) for entry in kernels["requirements"].get(kind, []))
        for kind in ("build", "host")
    )
    return build, host


def _output(recipe: dict[str, Any]) -> Output:
    package, build = recipe["package"], recipe["build"]
    run, constrains = (
        tuple(str(item) for item in recipe["requirements"].get(key, []))
        for key in ("run", "run_constraints")
    )
    noarch, behind = (
        build.get("noarch") == "python",
        bool(build.get("variant", {}).get("down_prioritize_variant")),
    )
    return Output(
        package["name"],
        str(package["version"]),
        str(build["string"]),
        noarch,
        run,
        constrains,
        int(build["number"]),
        behind,
    )
