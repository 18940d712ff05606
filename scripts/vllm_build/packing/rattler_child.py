# SPDX-License-Identifier: Apache-2.0
"""Runs rattler-build's bindings in a separate process, which ``recipe_builder`` starts with ``-m``.

The bindings hold the interpreter's lock during the whole build, and report a failure in one line
("Failed to resolve dependencies"). After a failure, this module looks for the reason without
building: it parses and renders the recipe and solves each environment, until one of these steps
fails with a message.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any


def _virtual_packages() -> list[Any]:
    from rattler import VirtualPackage, VirtualPackageOverrides  # noqa: PLC0415 -- after a failure

    return list(VirtualPackage.detect(VirtualPackageOverrides.from_env()))


def _specs(entries: Any) -> list[str]:
    """Match specs of one requirements list of a rendered recipe, without pins to other outputs."""
    return [entry for entry in entries or [] if isinstance(entry, str)]


async def _solve(specs: list[str], channels: list[str]) -> None:
    from rattler import solve  # noqa: PLC0415 -- needed after a failure only

    await solve(
        sources=channels,
        specs=specs,
        platforms=["linux-64", "noarch"],
        virtual_packages=_virtual_packages(),
    )


def recipe_groups(recipe: Path) -> list[list[Path]]:
    """The recipe itself, or those in the subfolders of a folder, in groups that are built in turn.

    A package is in the second group if others extend its name, as vllm-kernels extends vllm.
    """
    files = sorted(recipe.glob("*/recipe.yaml")) if recipe.is_dir() else [recipe]
    names = [path.parent.name for path in files]
    groups: tuple[list[Path], list[Path]] = ([], [])
    for path in files:
        extended = any(name.startswith(f"{path.parent.name}-") for name in names)
        groups[extended].append(path)
    return [group for group in groups if group]


def explain(arguments: dict[str, Any]) -> str | None:
    """Explain why a build with these arguments cannot start.

    Returns ``None`` if the recipe renders and its environments can be solved.
    """
    from rattler_build import (  # noqa: PLC0415 -- needed after a failure only
        JinjaConfig,
        PlatformConfig,
        RenderConfig,
        Stage0Recipe,
        VariantConfig,
    )

    platform = PlatformConfig(target_platform="linux-64", build_platform="linux-64")
    try:
        variants = VariantConfig.from_files_with_context(
            arguments["variant_config"], JinjaConfig(platform=platform)
        )
        extra = VariantConfig(arguments["variant_overrides"], zip_keys=variants.zip_keys)
        merged = variants.merge(extra)
        rendered = [
            variant
            for group in recipe_groups(Path(arguments["recipe"]))
            for path in group
            for variant in Stage0Recipe.from_file(str(path)).render(
                merged, RenderConfig(platform=platform)
            )
        ]
    except Exception as error:  # noqa: BLE001 -- any error of the bindings is the explanation
        return f"the recipe does not render: {error}"
    for variant in rendered:
        recipe = variant.recipe.to_dict()
        name = recipe.get("package", {}).get("name", "?")
        if recipe.get("context", {}).get("skip"):
            continue
        for environment in ("build", "host"):
            specs = _specs(recipe.get("requirements", {}).get(environment))
            if not specs:
                continue
            try:
                asyncio.run(_solve(specs, arguments["channel"]))
            except Exception as error:  # noqa: BLE001 -- as above
                return (
                    f"no {environment} environment for {name} from "
                    f"{', '.join(arguments['channel'])}: {error}"
                )
    return None


def main(path: str) -> int:
    """Build with the arguments in the JSON file ``path``; return 1 if the build failed."""
    arguments: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        # This entry point is marked as deprecated, and is the only one that builds several recipes
        # in the order of their dependencies.
        warnings.simplefilter("ignore", DeprecationWarning)
        from rattler_build import build_recipes  # noqa: PLC0415 -- the filter covers the import

        keywords = {key: value for key, value in arguments.items() if key != "recipe"}
        try:
            # The order within a group follows the requirements of the packages that are built. If
            # the kernels are not built again, it does not see that vllm's tests install FlashMLA.
            for group in recipe_groups(Path(arguments["recipe"])):
                build_recipes(group, **keywords)
        except Exception as error:  # noqa: BLE001 -- the parent gets any error as one line
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            try:
                reason = explain(arguments)
            except Exception:  # noqa: BLE001 -- a failing explanation must not hide the error
                reason = traceback.format_exc(limit=1)
            if reason:
                sys.stderr.write(reason + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
