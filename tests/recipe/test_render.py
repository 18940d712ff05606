# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from vllm_build.conda import recipe_outputs, variants
from vllm_build.digests import recipe_stamp
from vllm_build.util import paths
from vllm_build.util.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

VARIANTS = variants.names(paths.source_root())
COMPILED = ("vllm-kernels", "vllm-engine-kernels", "vllm-flash-attn", "vllm-flashmla")


@pytest.fixture(params=VARIANTS)
def outputs(request: pytest.FixtureRequest, root: Path) -> dict[str, recipe_outputs.Output]:
    return {
        o.name: o
        for o in recipe_outputs.render(
            root, variants.load(root, request.param), recipe_stamp.values(root)
        )
    }


def test_outputs(outputs: dict[str, recipe_outputs.Output]) -> None:
    cuda = any("cuda" in output.build for output in outputs.values())
    assert set(outputs) == {
        "vllm-kernels",
        "vllm",
        *(["vllm-engine-kernels", "vllm-flash-attn", "vllm-flashmla"] if cuda else []),
    }
    assert outputs["vllm"].noarch
    assert outputs["vllm"].subdir == "noarch"


def test_what_is_for_one_architecture_is_a_package_where_the_list_has_it(root: Path) -> None:
    stamps = recipe_stamp.values(root)

    def made(name: str, **more: str) -> dict[str, recipe_outputs.Output]:
        return {
            o.name: o
            for o in recipe_outputs.render(root, variants.load(root, name), {**stamps, **more})
        }

    for name in VARIANTS:
        assert ("vllm-flashmla" in made(name)) == name.startswith("cuda")
    assert "vllm-flashmla" not in made("cuda13", cuda_arch_list="8.0;9.0;10.0f")
    for archs, present in (("9.0a", True), ("8.0;9.0", False)):
        assert (
            "vllm-flashmla" in made("cuda13", cuda_arch_list=archs)["vllm-kernels"].run
        ) is present


def test_the_engines_kernels_are_required_where_they_are_built(root: Path) -> None:
    cuda, stamps = variants.load(root, "cuda13"), recipe_stamp.values(root)
    found = {}
    for kernels in ("engine", "own"):
        values = {**stamps, "kernels": kernels}
        made = {o.name: o for o in recipe_outputs.render(root, cuda, values)}
        assert ("vllm-engine-kernels" in made) is (kernels == "engine")
        assert ("vllm-engine-kernels" in made["vllm-kernels"].run) is (kernels == "engine")
        found[kernels] = {name: output.filename for name, output in made.items()}
    moved = {name for name, file in found["own"].items() if file != found["engine"][name]}
    assert moved == {"vllm-kernels"}


def test_kernels_carry_accelerator_abi_and_digest(
    outputs: dict[str, recipe_outputs.Output], root: Path
) -> None:
    for output in outputs.values():
        if output.name != "vllm":
            digest = recipe_stamp.values(root)[recipe_stamp.key(output.name)]
            assert re.fullmatch(
                rf"[a-z]+\d*_abi3_k{digest}_r[0-9a-f]{{12}}_h[0-9a-f]{{7}}_{output.number}",
                output.build,
            )


@pytest.mark.parametrize(
    ("archs", "present"),
    [("7.5", False), ("7.5+PTX", False), ("8.0", True), ("7.5;12.0f+PTX", True), ("10.0f", True)],
)
def test_flash_attention_is_there_where_an_architecture_serves_it(
    root: Path, archs: str, *, present: bool
) -> None:
    found = {
        o.name: o
        for o in recipe_outputs.render(
            root,
            variants.load(root, "cuda13"),
            {**recipe_stamp.values(root), "cuda_arch_list": archs},
        )
    }
    assert ("vllm-flash-attn" in found) is present
    assert ("vllm-flash-attn" in found["vllm-kernels"].run) is present


def test_the_set_of_head_sizes_is_in_the_name_of_flash_attention_alone(root: Path) -> None:
    before, after = (
        {
            o.name: o.filename
            for o in recipe_outputs.render(
                root, variants.load(root, "cuda13"), {**recipe_stamp.values(root), **more}
            )
        }
        for more in ({}, {"flash_attention_set": "dev"})
    )
    assert {name for name in before if before[name] != after[name]} == {"vllm-flash-attn"}


@pytest.mark.parametrize(
    ("name", "accelerator", "driver"),
    [
        ("cpu", "cpu", None),
        ("cuda124", "cuda124", "12"),
        ("cuda12", "cuda129", "12"),
        ("cuda13", "cuda130", "13"),
    ],
)
def test_the_accelerator_and_the_driver_that_it_takes(
    root: Path, name: str, accelerator: str, driver: str | None
) -> None:
    (output,) = (
        o
        for o in recipe_outputs.render(root, variants.load(root, name), recipe_stamp.values(root))
        if o.name == "vllm-kernels"
    )
    assert output.build.split("_")[0] == accelerator
    assert [spec for spec in output.run if spec.startswith("__cuda")] == (
        [f"__cuda >={driver}"] if driver else []
    )


def test_cuda_variants_are_built_with_nvcc_and_the_cpu_is_not(root: Path) -> None:
    asked = {
        name: recipe_outputs.required_names(
            root, variants.load(root, name), recipe_stamp.values(root)
        )
        for name in ("cpu", "cuda12", "cuda13")
    }
    assert not [name for name in asked["cpu"] if "cuda" in name]
    assert {"cuda-nvcc_linux-64", "cuda-version"} <= asked["cuda12"] & asked["cuda13"]


def test_the_architectures_are_in_the_name(root: Path) -> None:
    variant, stamps = variants.load(root, "cuda13"), recipe_stamp.values(root)
    before, after = (
        {o.name: o.filename for o in recipe_outputs.render(root, variant, {**stamps, **more})}
        for more in ({}, {"cuda_arch_list": "9.0a"})
    )
    assert before["vllm-kernels"] != after["vllm-kernels"]
    assert before["vllm"] == after["vllm"]


def test_vllm_pins_the_digest_and_no_accelerator(
    outputs: dict[str, recipe_outputs.Output], root: Path
) -> None:
    stamps = recipe_stamp.values(root)
    assert f"vllm-kernels ==0.1.0 *_k{stamps['kernels_digest']}_*" in outputs["vllm"].run
    for name in VARIANTS:
        accelerator = variants.load(root, name).accelerator
        assert accelerator not in outputs["vllm"].build
        assert not re.search(rf"\b{accelerator}\b", " ".join(outputs["vllm"].run))


def test_versions_have_no_local_part(outputs: dict[str, recipe_outputs.Output]) -> None:
    # conda sorts 1.0+cu129 below 1.0.
    assert all("+" not in output.version for output in outputs.values())


def test_noarch_name_is_the_same_for_every_variant(root: Path) -> None:
    names = {
        o.filename
        for name in VARIANTS
        for o in recipe_outputs.render(root, variants.load(root, name), recipe_stamp.values(root))
        if o.noarch
    }
    assert len(names) == 1
    cpu = variants.load(root, "cpu")
    other = replace(cpu, values={**cpu.values, "accelerator": "other"})
    stamps = recipe_stamp.values(root)
    mine, theirs = (
        {
            o.name: o.filename
            for o in recipe_outputs.render(
                root, cpu, {**stamps, "accelerator": v.accelerator, "c_compiler_version": c}
            )
        }
        for v, c in ((cpu, "12"), (other, "13"))
    )
    assert mine["vllm"] == theirs["vllm"]
    assert mine["vllm-kernels"] != theirs["vllm-kernels"]


@pytest.mark.parametrize(
    ("key", "output"),
    [
        ("kernels_digest", "vllm-kernels"),
        ("channel_digest", "vllm-kernels"),
        ("kernels_recipe_digest", "vllm-kernels"),
        ("package_digest", "vllm"),
        ("package_channel_digest", "vllm"),
        ("package_recipe_digest", "vllm"),
    ],
)
def test_what_shapes_the_content_is_in_the_name(root: Path, key: str, output: str) -> None:
    cpu, stamps = variants.load(root, "cpu"), recipe_stamp.values(root)
    before = {o.name: o.filename for o in recipe_outputs.render(root, cpu, stamps)}
    after = {
        o.name: o.filename for o in recipe_outputs.render(root, cpu, {**stamps, key: "f" * 12})
    }
    assert before[output] != after[output]


@pytest.mark.parametrize("variant", ["cpu", "cuda13"])
def test_what_shapes_one_output_is_not_in_the_name_of_another(root: Path, variant: str) -> None:
    chosen, stamps = variants.load(root, variant), recipe_stamp.values(root)
    before = {o.name: o.filename for o in recipe_outputs.render(root, chosen, stamps)}
    libraries = {recipe_stamp.key(name): name for name in before if name != "vllm"}
    recipes = {recipe_stamp.recipe_key(name): name for name in before}
    # The CPU variant also has the recipe digests of packages that it does not build.
    absent = {recipe_stamp.recipe_key(name) for name in COMPILED if name not in before}
    for key in (key for key in stamps if key.endswith("_digest")):
        after = {
            o.name: o.filename
            for o in recipe_outputs.render(root, chosen, {**stamps, key: "f" * 12})
        }
        moved = {name for name in before if before[name] != after[name]}
        if key in recipes:
            assert moved == {recipes[key]}
        elif key in absent:
            assert moved == set()
        else:
            # vllm pins the other packages by digest.
            assert moved == {libraries.get(key, "vllm"), "vllm"}


@pytest.mark.parametrize("package", [*COMPILED, "vllm"])
def test_a_recipe_says_in_its_context_what_it_skips(root: Path, package: str) -> None:
    """The bindings show the context of a rendered recipe, and not ``build.skip``."""
    recipe = YAML(typ="safe", pure=True).load(
        (root / "recipe" / package / "recipe.yaml").read_text(encoding="utf-8")
    )
    assert recipe["build"].get("skip") == ("${{ skip }}" if "skip" in recipe["context"] else None)


@pytest.mark.parametrize("package", [*COMPILED, "vllm"])
def test_rattler_build_finds_the_digests_next_to_each_recipe(root: Path, package: str) -> None:
    found = root / "recipe" / package / "variants.yaml"
    assert found.read_bytes() == (root / recipe_stamp.FILE).read_bytes()


@pytest.mark.parametrize("package", COMPILED)
def test_compilers_are_conda_forge_names(root: Path, package: str) -> None:
    text = (root / "recipe" / package / "recipe.yaml").read_text(encoding="utf-8")
    for function in ("compiler('c')", "compiler('cxx')", "stdlib('c')", "compiler('cuda')"):
        assert function in text


def test_a_key_the_recipe_needs_and_nobody_gives_is_an_error(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "cpu.yaml"
    text = (
        (root / "variants" / "cpu.yaml")
        .read_text(encoding="utf-8")
        .replace("accelerator:", "accelerated:")
    )
    path.write_text(text, encoding="utf-8")
    variant = variants.Variant("cpu", path, {})
    with pytest.raises(ConfigurationError, match="does not render"):
        recipe_outputs.render(root, variant, {})
