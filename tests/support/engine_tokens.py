# SPDX-License-Identifier: Apache-2.0
"""Compares the engine of an installed environment with transformers, in child processes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine_models
import engine_server

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHILD = Path(__file__).with_name("engine_tokens_child.py")

#: The longest part of a prompt that the engine computes at once in the run ``chunked``.
CHUNK = 32
#: Sequences that the engine computes at once in the run ``batch``.
SEQUENCES = 3

#: Options of the engine with which the tokens must be those of transformers.
EQUAL: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "chunked": {"enable_chunked_prefill": True, "max_num_batched_tokens": CHUNK},
    "batch": {"max_num_seqs": SEQUENCES},
    "prefix": {"enable_prefix_caching": True, "block_size": 32, "again": True},
}
#: The same, for ``make test-full``: with processes of their own, and a compiler.
SLOW: Mapping[str, Mapping[str, Any]] = {
    "parallel": {"tensor_parallel_size": 2},
    "compiled": {"enforce_eager": False},
}
#: Options with which the log-probabilities must be near those of float32.
NEAR: Mapping[str, Mapping[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16", "logprobs": True},
    "float16": {"dtype": "float16", "logprobs": True},
}
#: Log-probabilities in float32.
EXACT: Mapping[str, Any] = {"logprobs": True}
#: A cache of float8 numbers, which MLA on CPUs refuses.
FLOAT8: Mapping[str, Any] = {"kv_cache_dtype": "fp8_e4m3", "logprobs": True}


def has_float8_cache(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether upstream permits a float8 cache on this CPU: with AVX-512 or AMX.

    Our kernels have it for every instruction set.
    """
    flags = set(cpuinfo.read_text(encoding="utf-8").split())
    return bool(flags & {"avx512f", "amx_tile"})


@dataclass(frozen=True)
class Compared:
    """What a child process found for one architecture."""

    name: str
    answer: Mapping[str, Any]

    def run(self, name: str) -> dict[str, Any]:
        """The result of the run ``name``."""
        found: dict[str, Any] = self.answer["runs"][name]
        return found

    def different(self, name: str) -> list[str]:
        """The prompts for which the tokens of a run differ from those of transformers."""
        return [
            f"{self.name}, {name}, prompt {number}: {got}, expected {wanted}"
            for number, (got, wanted) in enumerate(
                zip(self.run(name)["tokens"], self.answer["wanted"], strict=True)
            )
            if got != wanted
        ]


def compare(
    prefix: Path, folder: Path, name: str, runs: Mapping[str, Mapping[str, Any]]
) -> Compared:
    """Run a model of :data:`engine_models.MODELS` with transformers and with the engine.

    Args:
        prefix: the environment.
        folder: for the model, and as the home of the programs.
        name: the model's name.
        runs: names and options of the engine, as in :data:`EQUAL`.

    Raises:
        AssertionError: the child failed; the message ends with its output.
    """
    env = engine_server.environ(
        prefix,
        folder,
        # All engines of a child are in its own process, which saves ten seconds for each of them.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_LOGGING_LEVEL="WARNING",
        OMP_WAIT_POLICY="PASSIVE",
    )
    del env["VLLM_CPU_KVCACHE_SPACE"]  # an option of each engine
    done = subprocess.run(
        [
            *(str(prefix / "bin" / "python"), "-P", str(_CHILD), str(folder)),
            json.dumps({"model": name, "runs": {run: dict(runs[run]) for run in runs}}),
        ],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, f"{name}: exit status {done.returncode}\n{done.stderr[-8000:]}"
    return Compared(name, json.loads(done.stdout.strip().splitlines()[-1]))


def control(name: str) -> dict[str, Any]:
    """Options with which the engine computes another model, so that its tokens must differ."""
    return {"hf_overrides": dict(engine_models.MODELS[name].control)}


def near(name: str, *, slow: bool = True) -> tuple[str, ...]:
    """The runs of :data:`NEAR` for an architecture."""
    return ("bfloat16", "float16") if slow and engine_models.MODELS[name].half else ("bfloat16",)


def every(name: str, *, slow: bool = True) -> dict[str, Mapping[str, Any]]:
    """All runs of an architecture; without ``slow``, those of ``make test``."""
    float8 = has_float8_cache() and not engine_models.MODELS[name].latent
    return {
        **EQUAL,
        **(SLOW if slow else {}),
        **{run: NEAR[run] for run in near(name, slow=slow)},
        "exact": EXACT,
        "control": control(name),
        **({"float8": FLOAT8} if float8 else {}),
    }
