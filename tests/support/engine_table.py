# SPDX-License-Identifier: Apache-2.0
"""Prints the tables of docs/engine-equality.md, from runs in an installed environment.

    python tests/support/engine_table.py PREFIX [ARCHITECTURE …]

PREFIX is an environment with the CPU packages and a C++ compiler, such as the one that
``make test-full ARGS=tests/recipe/engine/test_engine_tokens.py`` leaves in output/.test/engine.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import engine_tokens
from engine_models import LENGTHS, MODELS

TITLES = {
    "llama": "Llama",
    "qwen3": "Qwen3",
    "mixtral": "Mixtral, 8 experts",
    "gemma3": "Gemma 3, sliding window",
    "deepseek_v2": "DeepSeek-V2, MLA and 8 experts",
    "stablelm": "StableLM, a quarter of each head rotated",
    "gpt_neox": "GPT-NeoX, a quarter of each head rotated",
    "phi": "Phi, half of each head rotated",
}
EQUAL = (*engine_tokens.EQUAL, *engine_tokens.SLOW)


def number(value: float) -> str:
    """A number with two digits."""
    return f"{value:.1e}".replace("e-0", "e-").replace("e+00", "")


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def head(*cells: str) -> str:
    """The first two lines of a table."""
    return f"{row(*cells)}\n|{'---|' * len(cells)}"


def verdict(found: engine_tokens.Compared, run: str) -> str:
    """How many prompts have the tokens of transformers."""
    different, settings = len(found.different(run)), found.run(run)["settings"]
    if different:
        return f"{len(LENGTHS) - different} of {len(LENGTHS)}"
    ignored = {"chunked": not settings["chunked"], "prefix": not settings["prefix_caching"]}
    return "ignored" if ignored.get(run) else "equal"


def worst(values: dict[str, float], kind: str) -> str:
    """The larger of the differences for prompts and for generated tokens."""
    return number(max(values[f"{part}_{kind}"] for part in ("prompt", "generated")))


def tables(all_found: list[engine_tokens.Compared]) -> list[str]:
    """The tables for tokens, for each of the two types, and for a float8 cache."""
    lines = [head("architecture", *EQUAL, "smallest lead", "largest difference", "control")]
    for found in all_found:
        exact = found.run("exact")["differences"]
        lines.append(
            row(
                TITLES[found.name],
                *(verdict(found, run) for run in EQUAL),
                number(found.answer["lead"]),
                worst(exact, "max"),
                f"{len(found.different('control'))} of {len(LENGTHS)} differ",
            )
        )
    for name in engine_tokens.NEAR:
        columns = ("mean", "transformers", "largest", "transformers", "prompts with equal tokens")
        lines += ["", head(name, *columns)]
        for found in all_found:
            values = found.run(name)["differences"]
            lines.append(
                row(
                    TITLES[found.name],
                    *(worst(values, "mean"), number(values["other_mean"])),
                    *(worst(values, "max"), number(values["other_max"])),
                    f"{len(LENGTHS) - len(found.different(name))} of {len(LENGTHS)}",
                )
            )
    lines += ["", head("float8 cache", "mean", "largest", "mean without rounding")]
    for found in all_found:
        if not MODELS[found.name].latent:
            run = found.run("float8")
            lines.append(
                row(
                    TITLES[found.name],
                    *(worst(run["rounded"], kind) for kind in ("mean", "max")),
                    worst(run["differences"], "mean"),
                )
            )
    return lines


def main(prefix: Path, names: list[str]) -> None:
    """Compare the architectures and print the tables."""
    found = []
    for name in names or list(MODELS):
        with tempfile.TemporaryDirectory() as folder:
            found.append(
                engine_tokens.compare(prefix, Path(folder), name, engine_tokens.every(name))
            )
        print(f"{name}: done", file=sys.stderr, flush=True)
    print("\n".join(tables(found)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
