# SPDX-License-Identifier: Apache-2.0
"""Makes the models, with random weights and without a tokenizer."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engines.cases import CONTEXT, MODELS
from vllm_build.util import paths
from vllm_build.util.errors import PackageTestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kernels.peers import Runner

MAKER = paths.source_root() / "scripts" / "engine_demo"
_PROGRAM = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import small_model
asked = json.loads(sys.argv[3])
sizes = small_model.Sizes(**asked["sizes"])
small_model.make(
    Path(sys.argv[2]), "llama", sizes=sizes, dtype="bfloat16", tokenizer=False,
    tie_word_embeddings=asked["tied"],
)
"""


def arguments(name: str) -> dict[str, object]:
    """What the maker needs to know about a model."""
    model = MODELS[name]
    sizes = {
        "vocabulary": model.vocabulary,
        "hidden": model.hidden,
        "intermediate": model.inner,
        "layers": model.layers,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "context": CONTEXT,
    }
    return {"sizes": sizes, "tied": model.tied}


@contextmanager
def folder(parent: Path, runner: Runner) -> Iterator[Callable[[str], Path]]:
    """A function that returns the folder with a model; all models are removed at the end.

    The weights are bfloat16. Engines convert them when they compute in float32. A model is removed
    when the next one is made: each occupies one to two gigabytes.

    Args:
        parent: where the models lie.
        runner: an interpreter with torch and transformers.
    """
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            for other in made.values():
                shutil.rmtree(other, ignore_errors=True)
            made.clear()
            target = parent / name
            shutil.rmtree(target, ignore_errors=True)
            words = [str(MAKER), str(target), json.dumps(arguments(name))]
            done = subprocess.run(
                runner.command(str(runner.python), "-c", _PROGRAM, *words),
                env=dict(runner.env),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                shutil.rmtree(target, ignore_errors=True)
                raise PackageTestError(
                    f"the model {name} cannot be made: {done.stderr.strip()[-300:]}",
                    expected="torch, transformers and space for some gigabytes",
                )
            made[name] = target
        return made[name]

    try:
        yield make
    finally:
        for target in made.values():
            shutil.rmtree(target, ignore_errors=True)
