# SPDX-License-Identifier: Apache-2.0
"""The engine of a GPU's packages on a machine without a GPU: the report, and the refusal."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from command_runs import MARK, gone

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds after which a command that does not end counts as hanging.
PATIENCE = 1200.0
_CONFIGURATION = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 1,
    "vocab_size": 128,
    "max_position_embeddings": 128,
    "torch_dtype": "float32",
}


@dataclass(frozen=True)
class Ended:
    """A command that ended, and whether all processes that it started did."""

    status: int
    out: str
    err: str
    alone: bool


def run(prefix: Path, home: Path, *words: str) -> Ended:
    """Run a program of the environment, without the caller's variables and without a hub."""
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [str(prefix / "bin" / words[0]), *words[1:]],
        cwd=home,
        env={
            "PATH": f"{prefix}/bin:/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONNOUSERSITE": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            # A machine with a GPU is one without for these tests.
            "CUDA_VISIBLE_DEVICES": "",
            "HIP_VISIBLE_DEVICES": "",
            MARK: mark,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return Ended(done.returncode, done.stdout, done.stderr, gone(mark, 30))


def model(folder: Path) -> Path:
    """The folder of a model without weights: the refusal comes before they are read."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_CONFIGURATION), encoding="utf-8")
    return folder


def check_report(prefix: Path, home: Path, device: str, packages: tuple[str, ...]) -> None:
    """``collect_env`` lists the platform, the engine, and the kernels with their digests."""
    done = run(prefix, home, "python", "-m", "vllm.collect_env", "--json")
    assert (done.status, done.alone) == (0, True), done.err[-3000:]
    report: dict[str, Any] = json.loads(done.out)
    assert report["platform"]["device_name"] == device
    assert re.fullmatch(r"[\d.]+", report["engine"]["version"])
    assert re.fullmatch(r"[0-9a-f]{64}", report["engine"]["sha256"])
    assert report["engine"]["platform"].startswith(f"vllm._kernels.engine.{device}.")
    components = {entry["component"]: entry for entry in report["components"]}
    assert set(components) == set(packages)
    for entry in components.values():
        assert re.fullmatch(r"[0-9a-f]{64}", entry["kernel_digest"])
        assert "differs" not in entry
        assert set(entry["files"].values()) == {"as built"}
    # The same as text, for people.
    text = run(prefix, home, "python", "-m", "vllm.collect_env").out
    for word in (report["engine"]["sha256"], *(c["kernel_digest"] for c in components.values())):
        assert word in text


def check_refusal(prefix: Path, home: Path, device: str) -> None:
    """``vllm`` is imported, and its server refuses in one line and leaves nothing behind."""
    folder = model(home / "model")
    imported = run(
        prefix,
        home,
        "python",
        "-c",
        "import vllm, vllm.entrypoints.llm; from vllm.platforms import current_platform as p; "
        "print(vllm.__version__, type(p).__module__)",
    )
    assert imported.status == 0, imported.err[-3000:]
    assert imported.out.split()[-1] == f"vllm._kernels.engine.{device}"
    for words in (
        ("serve", str(folder)),
        # A name of the hub is not looked for, and several servers are not started.
        ("serve", "some/model", "--data-parallel-size", "2", "--api-server-count", "2"),
    ):
        done = run(prefix, home, "vllm", *words)
        assert done.status not in (0, None), done.out[-3000:]
        assert done.alone, "a process of the server is still running"
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.err[-3000:]
        assert re.fullmatch(
            rf"error: vllm's kernels here are for {device}, but torch \S+ sees no GPU: .*"
            r"conda install \"vllm-kernels=\*=cpu_\*\"",
            errors[0],
        )
        assert "Traceback" not in done.err
