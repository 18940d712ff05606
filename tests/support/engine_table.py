# SPDX-License-Identifier: Apache-2.0
"""Prints the tables of docs/engine-equality.md.

They come from the last comparisons of ``make test-full ARGS=tests/recipe/engine``.
"""

from __future__ import annotations

import json

import engine_tokens
from engine_models import LENGTHS, MODELS
from package_runs import OUTPUT

#: Where comparisons are kept.
KEPT = OUTPUT / ".test" / "engine-tokens"
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
        columns = ("usual", "transformers", "largest", "transformers", "prompts with equal tokens")
        lines += ["", head(name, *columns)]
        for found in all_found:
            if name not in found.answer["runs"]:
                continue
            values = found.run(name)["differences"]
            usual, largest = ("median", "most") if MODELS[found.name].experts else ("mean", "max")
            lines.append(
                row(
                    TITLES[found.name],
                    *(worst(values, usual), number(values[f"other_{usual}"])),
                    *(worst(values, largest), number(values[f"other_{largest}"])),
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


def keep(found: engine_tokens.Compared) -> None:
    """Keep a comparison for the tables."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{found.name}.json"
    path.write_text(json.dumps(found.answer), encoding="utf-8")


def main() -> None:
    """Print the tables.

    Raises:
        FileNotFoundError: an architecture has not been compared.
    """
    answers = {name: (KEPT / f"{name}.json").read_text(encoding="utf-8") for name in MODELS}
    found = [engine_tokens.Compared(name, json.loads(text)) for name, text in answers.items()]
    print("\n".join(tables(found)))


if __name__ == "__main__":
    main()
