# SPDX-License-Identifier: Apache-2.0
"""What each subcommand of ``vllm-build`` does: reads its arguments, calls the library, shows the result."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vllm_build import device, kernels_table, paths
from vllm_build import doctor as machine
from vllm_build import plan as plans
from vllm_build import stamp as stamps
from vllm_build.conda import channel, environment, verify
from vllm_build.conda import package as packages
from vllm_build.conda import variants as variant_files
from vllm_build.conda.package import Request
from vllm_build.settings import Settings
from vllm_build.toolchain import channel as toolchain_channel
from vllm_build.toolchain import update as toolchain_update

if TYPE_CHECKING:
    from argparse import Namespace

    from vllm_build.console import Console


def _request(arguments: Namespace, name: str) -> Request:
    root = paths.source_root()
    return Request(root, variant_files.load(root, name), channel.choose(arguments.channel), arguments.output.absolute())


def package(arguments: Namespace, console: Console) -> int:
    """Build, install and run the packages of one variant."""
    result = packages.package(_request(arguments, arguments.variant), console)
    console.table("stages", ["stage", "seconds"], [[title, f"{seconds:.1f}"] for title, seconds in result["seconds"].items()])
    console.table("packages", ["file", "sha256"], [[p["path"], p["sha256"]] for p in result["packages"]])
    if console.json_mode:
        console.json(result)
    else:
        console.info("install with:")
        console.output(result["install"])
    return 0


def toolchain(arguments: Namespace, console: Console) -> int:
    """Build the local channel, or lock its sources anew."""
    root, only = paths.source_root(), arguments.ids or None
    if arguments.update:
        changed = toolchain_update.update(root, console, only=only)
        console.table("newly locked", ["build", "file"], [[file.build, file.filename] for file in changed])
        if console.json_mode:
            console.json({"changed": [asdict(file) for file in changed]})
        return 0
    report = toolchain_channel.ensure(root, console, only=only)
    rows = [[o.id, o.action, f"{o.seconds:.1f}", f"{o.size / 1e6:.1f}"] for o in report.outcomes]
    console.table(f"toolchain channel {report.path}", ["build", "action", "seconds", "MB"], rows)
    if console.json_mode:
        console.json(asdict(report) | {"path": str(report.path), "url": report.url})
    return 0


def render(arguments: Namespace, console: Console) -> int:
    """Show what each variant gives."""
    names = arguments.variant or variant_files.names(paths.source_root())
    found = {name: packages.expected(_request(arguments, name)) for name in names}
    if console.json_mode:
        console.json({name: [output.as_dict() for output in outputs] for name, outputs in found.items()})
    for name, outputs in found.items():
        console.table(name, ["package", "subdir", "requires"], [[o.filename, o.subdir, "\n".join(o.run)] for o in outputs])
    return 0


def test_package(arguments: Namespace, console: Console) -> int:
    """Check the built packages of a variant."""
    request = _request(arguments, arguments.variant)
    verify.prepare(request, console)
    result: dict[str, Any] = {
        "interpreters": [{"interpreter": i.name, "said": verify.compute(request, i, console)} for i in verify.INTERPRETERS]
    }
    findings = verify.audits(request, request.output / ".test" / "py3.11", console)
    result["audits"] = [{"library": f.library, "check": f.check, "good": f.good} for f in findings]
    said = verify.installed_tests(request, console)
    result["tests"] = {name: text.strip().splitlines()[-1] for name, text in said.items()}
    if console.json_mode:
        console.json(result)
    return 0


def install(arguments: Namespace, console: Console) -> int:
    """Install built packages into a prefix."""
    urls = [arguments.output.absolute().as_uri(), channel.url(channel.choose(arguments.channel))]
    with console.step(f"install {' '.join(arguments.specs)}"):
        records = environment.create(arguments.prefix.absolute(), arguments.specs, urls)
    if console.json_mode:
        console.json(records)
    return 0


def stamp(arguments: Namespace, console: Console) -> int:
    """Write or compare recipe/variants.yaml."""
    root = paths.source_root()
    if arguments.check:
        stamps.check(root)
    elif stamps.write(root):
        console.info("recipe/variants.yaml written")
    if console.json_mode:
        console.json(stamps.values(root))
    return 0


def plan(arguments: Namespace, console: Console) -> int:
    """Show the kernel plan of a device."""
    root = paths.source_root()
    chosen = arguments.device or device.target_device(Settings.from_environ())
    resolved = plans.resolve(kernels_table.load(root), chosen)
    if console.json_mode:
        console.json(json.loads(resolved.to_json()))
    rows = [[e.name, e.component, k.name, "\n".join(map(str, k.sources))] for e in resolved.extensions for k in e.kernels]
    console.table(f"kernels for {chosen}", ["extension", "package", "kernel", "sources"], rows)
    return 0


def doctor(_: Namespace, console: Console) -> int:
    """Show what was found on this machine."""
    facts = machine.examine(paths.source_root())
    if console.json_mode:
        console.json([fact.as_dict() for fact in facts])
    console.table("doctor", ["what", "found", "remedy"], [[f.what, f.found, f.remedy or ""] for f in facts])
    return 4 if any(fact.remedy for fact in facts) else 0
