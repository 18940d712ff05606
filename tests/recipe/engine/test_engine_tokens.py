# SPDX-License-Identifier: Apache-2.0
"""The engine of the CPU packages generates the tokens of transformers.

``make test`` compares two architectures, ``make test-full`` all of them, with more of the engine's
options. docs/engine-equality.md says what is compared, and why the bounds are what they are.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import engine_table
import engine_tokens
import full_suite
import pytest
from engine_models import LENGTHS, MODELS, NEW

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine_tokens import Compared

pytestmark = pytest.mark.slow

NAMES = tuple(MODELS) if full_suite.FULL else ("llama", "deepseek_v2")
EQUAL = (*engine_tokens.EQUAL, *(engine_tokens.SLOW if full_suite.FULL else ()))
NEAR = [(name, run) for name in NAMES for run in engine_tokens.near(name, slow=full_suite.FULL)]
FLOAT8 = tuple(name for name in NAMES if not MODELS[name].latent)

#: The largest difference of log-probabilities in float32, in nats: some hundred roundings of sums
#: near one.
EXACT = 5e-5
#: The engine's log-probabilities may be this many times as far from those of float32 as the ones of
#: transformers in the same dtype: on average, and at most.
MEAN, MOST = 1.5, 2.0
#: Largest differences, in nats, between the engine with a float8 cache and transformers with keys
#: and values that were rounded to float8: only float32 sums in another order are left, and values
#: between two float8 numbers, which these sums may round to either of them.
ROUNDED_MEAN = 1e-3


@pytest.fixture(scope="module")
def compared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Compared]:
    """Compare an architecture, once for all tests. A full run leaves what the docs' tables need."""
    prefix: Path = request.getfixturevalue("compiling" if full_suite.FULL else "prefix")

    # A comparison that failed is not repeated for every test either.
    @functools.cache
    def attempt(name: str) -> Compared | AssertionError:
        runs = engine_tokens.every(name, slow=full_suite.FULL)
        try:
            found = engine_tokens.compare(prefix, tmp_path_factory.mktemp(name), name, runs)
        except AssertionError as error:
            return error
        if full_suite.FULL:
            engine_table.keep(found)
        return found

    def compare(name: str) -> Compared:
        found = attempt(name)
        if isinstance(found, AssertionError):
            raise found
        return found

    return compare


@pytest.mark.parametrize("run", EQUAL)
@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_are_those_of_transformers(
    compared: Callable[[str], Compared], name: str, run: str
) -> None:
    found = compared(name)
    assert [len(tokens) for tokens in found.answer["wanted"]] == [NEW] * len(LENGTHS)
    assert not (different := found.different(run)), "\n".join(different)


@pytest.mark.parametrize("name", NAMES)
def test_another_model_generates_other_tokens(
    compared: Callable[[str], Compared], name: str
) -> None:
    """The comparison sees rotations, windows, and the choice and the weight of experts."""
    assert compared(name).different("control")


@pytest.mark.parametrize("name", NAMES)
def test_no_choice_of_the_reference_is_a_tie(
    compared: Callable[[str], Compared], name: str
) -> None:
    """The best token leads by more than the difference of the two implementations."""
    found = compared(name)
    difference = max(
        found.run("exact")["differences"][f"{part}_max"] for part in ("prompt", "generated")
    )
    assert 0 < difference <= EXACT
    assert found.answer["lead"] > 2 * difference


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_did_what_the_runs_are_named_for(
    compared: Callable[[str], Compared], name: str
) -> None:
    found, latent = compared(name), MODELS[name].latent
    settings = {run: found.run(run)["settings"] for run in EQUAL}
    # For MLA on CPUs, the engine computes each prompt at once, and keeps no prefixes.
    assert settings["chunked"]["chunked"] is not latent
    assert (settings["chunked"]["batched_tokens"] == engine_tokens.CHUNK) is not latent
    assert settings["prefix"]["prefix_caching"] is not latent
    assert (found.run("prefix")["hits"] > 0) is not latent
    assert found.run("plain")["hits"] == 0
    assert settings["batch"]["sequences"] == engine_tokens.SEQUENCES < len(LENGTHS)
    assert settings["plain"]["compilation"] == "NONE"
    if full_suite.FULL:
        assert settings["parallel"]["parallel"] == 2
        assert settings["compiled"]["compilation"] == "DYNAMO_TRACE_ONCE"
        assert settings["compiled"]["backend"] == "inductor"


@pytest.mark.parametrize(("name", "run"), NEAR)
def test_log_probabilities_are_as_near_as_those_of_transformers(
    compared: Callable[[str], Compared], name: str, run: str
) -> None:
    found = compared(name).run(run)["differences"]
    # Another expert gives another token; it is chosen seldom, but then the difference is large.
    usual, largest = ("median", "most") if MODELS[name].experts else ("mean", "max")
    for part in ("prompt", "generated"):
        assert 0 < found[f"{part}_{usual}"] <= MEAN * found[f"other_{usual}"], found
        assert found[f"{part}_{largest}"] <= MOST * found[f"other_{largest}"], found
    # A token that float32 would not choose is a tie: both are as probable, up to two errors.
    if not MODELS[name].experts:
        assert found["regret"] <= 2 * MOST * found["other_max"], found


@pytest.mark.skipif(
    not engine_tokens.has_float8_cache(),
    reason="upstream refuses a float8 cache on this CPU, which test_engine_failures.py tests",
)
@pytest.mark.parametrize("name", FLOAT8)
def test_a_float8_cache_is_the_rounding_of_keys_and_values(
    compared: Callable[[str], Compared], name: str
) -> None:
    found = compared(name).run("float8")
    assert found["settings"]["cache"] == "fp8_e4m3"
    rounded, exact = found["rounded"], found["differences"]
    for part in ("prompt", "generated"):
        assert rounded[f"{part}_mean"] <= ROUNDED_MEAN, rounded
        # The rounding itself is far larger, so the cache was really rounded.
        assert exact[f"{part}_mean"] > 10 * rounded[f"{part}_mean"], (exact, rounded)
