"""turnwise export RUN --out FILE: an agent as a program for other run times, or a policy for servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, parse


@dataclass(frozen=True)
class Export:
    """Write a trained agent as a program, ONNX or torch.export, with its memory as explicit state; or a
    policy that speaks as a folder that vLLM and SGLang start from."""

    run: Path
    """Run folder of an agent that acts in an environment, or of a policy that speaks."""
    out: Path
    """File to write: .onnx (needs turnwise[export]) or .pt2, which torch.export.load reads; a folder for a
    policy that speaks."""
    json: bool = False
    """Print one result object on stdout."""


def run(args: Sequence[str]) -> dict[str, Any]:
    """Write the file, and say what goes in and comes out."""
    a = parse(Export, args, "export", Export.__doc__ or "", alone=("run", "out"))
    from turnwise.recipes.export import STEPS, export

    found, out = export(a.run, a.out), console(a.json)
    if not found.inputs:
        out.print(f"for servers: {found.file}")
        return {"file": str(found.file)}
    for title, ports in (("reads", found.inputs), ("gives", found.outputs)):
        for name, (kind, shape) in ports.items():
            out.print(f"  {title:<6}{name:<24}{kind} [{', '.join(map(str, shape))}]", markup=False)
            title = ""
    if found.difference is None:
        out.print("not compared with the agent: onnxruntime is not installed")
    else:
        out.print(f"differs from the agent by {found.difference:.1g} at most, over {STEPS} steps")
    out.print(f"program: {found.file}")
    return asdict(found) | {"file": str(found.file)}
