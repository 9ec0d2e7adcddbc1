"""A trained agent as a program for other run times: one step, its memory among what goes in and comes out."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from turnwise.envs.protocol import Discrete, MultiDiscrete, Space
from turnwise.models.agents.program import INPUTS, StepProgram
from turnwise.models.lm.served import write_served
from turnwise.recipes.opened import load
from turnwise.recipes.trained import Actor, Policy
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.whole import whole_file

FORMATS = (".onnx", ".pt2")
ABOUT = "turnwise.json"
"""what a `.pt2` file says of itself, and the key under which a `.onnx` file says it"""
STEPS, LANES = 20, 3
"""of the comparison with the agent itself"""
TOLERANCE = 1e-5
"""largest difference that is still the same number"""

Run = Callable[..., tuple[Tensor, ...]]
"""the program as it was written, called with its inputs in order"""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    file: Path
    inputs: dict[str, list[Any]]
    """name of each input: [kind of numbers, shape]; N is the number of lanes"""
    outputs: dict[str, list[Any]]
    difference: float | None
    """largest difference of any number from the agent's own, over 20 steps with episodes that begin in
    between; None if nothing that runs the file is installed, and for a model for servers"""


def export(trained: Any, file: str | Path) -> Exported:
    """Write an agent that acts in an environment as `FILE.onnx` or `FILE.pt2` (`torch.export`), or a policy
    that speaks as a folder that a server starts from.

    `trained`: what `fit` or `load` returned, or a run folder. Any number of lanes goes through the program at
    a time. What it needs to know of the spaces stands in the file as JSON. A `.onnx` file takes the packages
    onnx and onnxscript, and is compared with the agent if onnxruntime is installed. SettingError for another
    ending, InputError for what is no agent, for packages that are missing, or if the file disagrees.
    """
    path = Path(file)
    if path.suffix not in FORMATS:
        found = load(trained) if isinstance(trained, str | Path) else trained
        if isinstance(found, Policy):
            return _for_servers(found, path)
        raise SettingError("out", str(file), f"a file that ends in {' or '.join(FORMATS)}")
    if path.suffix == ".onnx":
        _expect_packages()
    saved = _agent(trained)
    program = StepProgram(saved.module).eval()
    inputs, outputs = _ports(saved, program)
    about = {"kind": saved.kind, "inputs": inputs, "outputs": outputs, "spaces": saved.spaces.written()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write = _onnx if path.suffix == ".onnx" else _pt2
    with whole_file(path) as part, _silence():
        part.write_bytes(write(program, tuple(_inputs(saved, 2, program.state_size)), about))
        runs = _run_onnx(part) if path.suffix == ".onnx" else _run_pt2(part)
        difference = None if runs is None else _difference(saved, program, runs)
        if difference is not None and not difference <= TOLERANCE:
            raise InputError(
                f"{path}: the program differs from the agent by {difference:.3g}; expected {TOLERANCE:g} at "
                "most, so nothing is written"
            )
    return Exported(path, inputs, outputs, difference)


def _for_servers(policy: Policy, folder: Path) -> Exported:
    """The language model alone, with an output layer of its own, which servers can be given anew."""
    agent = policy.agent
    if agent.critic is not None and agent.acting.beta:
        raise InputError(
            "a critic has a say in what this policy says (beta is not 0), and a server knows nothing of it; "
            "expected a policy without one"
        )
    write_served(folder, agent.lm, agent.tokenizer)
    return Exported(folder, {}, {}, None)


def about(file: str | Path) -> dict[str, Any]:
    """What a file that `export` wrote says of itself: `kind`, `inputs`, `outputs` and `spaces`."""
    path = Path(file)
    if path.suffix == ".onnx":
        _expect_packages()
        import onnx  # type: ignore[import-not-found]

        return json.loads({p.key: p.value for p in onnx.load(path).metadata_props}[ABOUT])
    said = {ABOUT: ""}
    torch.export.load(path, extra_files=said)
    return json.loads(said[ABOUT])


def _agent(trained: Any) -> StepAgent:
    found = load(trained) if isinstance(trained, str | Path) else trained
    if isinstance(found, Actor):
        found = found.saved
    if not isinstance(found, StepAgent):
        raise InputError(
            f"{trained if isinstance(trained, str | Path) else type(found).__name__}: expected an agent that "
            "acts in steps (ppo, a2c, reinforce, r2d2, sac); language models and judges are saved as "
            "transformers reads them"
        )
    return found


def _expect_packages() -> None:
    import importlib.util

    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"a .onnx file takes the package {' and '.join(missing)}: pip install 'turnwise[export]'; "
            "expected it, or a file that ends in .pt2"
        )


def _ports(saved: StepAgent, program: StepProgram) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Names, kinds and shapes of what goes in and comes out."""

    def port(space: Space) -> list[Any]:
        if isinstance(space, MultiDiscrete):
            return ["int64", ["N", len(space.sizes)]]
        return ["int64", ["N"]] if isinstance(space, Discrete) else ["float32", ["N", space.size]]

    seen, acts, k = saved.spaces.observations, saved.spaces.actions, program.state_size
    if isinstance(acts, MultiDiscrete):
        many = sum(acts.sizes)
    else:
        many = acts.n if isinstance(acts, Discrete) else 2 * acts.size
    memory = ["float32", ["N", k]]
    given = (port(seen), port(acts), ["float32", ["N"]], ["bool", ["N"]], memory)
    outputs = {program.gives: ["float32", ["N", many]], "action": port(acts), "next_memory": memory}
    return dict(zip(INPUTS, given, strict=True)), outputs


def _inputs(saved: StepAgent, lanes: int, width: int, seed: int = 0) -> Iterator[Tensor]:
    """Something that goes in: arbitrary observations, actions, rewards; the memory of nothing."""
    draw = torch.Generator().manual_seed(seed)
    for space in (saved.spaces.observations, saved.spaces.actions):
        if isinstance(space, Discrete):
            yield torch.randint(space.n, (lanes,), generator=draw)
        elif isinstance(space, MultiDiscrete):
            yield torch.stack([torch.randint(n, (lanes,), generator=draw) for n in space.sizes], -1)
        else:
            yield torch.randn(lanes, space.size, generator=draw)
    yield torch.randn(lanes, generator=draw)
    yield torch.rand(lanes, generator=draw) < 0.2
    yield torch.zeros(lanes, width)


def _shapes() -> list[dict[int, Any]]:
    """The first axis of every input is the lanes, as many as one likes."""
    return [{0: torch.export.Dim("lanes", min=1)}] * len(INPUTS)


def _pt2(program: StepProgram, example: tuple[Tensor, ...], about: dict[str, Any]) -> bytes:
    traced = torch.export.export(program, example, dynamic_shapes=_shapes())
    out = io.BytesIO()
    torch.export.save(traced, out, extra_files={ABOUT: json.dumps(about)})
    return out.getvalue()


def _onnx(program: StepProgram, example: tuple[Tensor, ...], about: dict[str, Any]) -> bytes:
    made: Any = torch.onnx.export(
        program,
        example,
        dynamo=True,
        dynamic_shapes=_shapes(),
        input_names=list(about["inputs"]),
        output_names=list(about["outputs"]),
        verbose=False,
    )
    model = made.model_proto
    model.metadata_props.add(key=ABOUT, value=json.dumps(about))
    return model.SerializeToString()


def _run_pt2(file: Path) -> Run:
    return torch.export.load(io.BytesIO(file.read_bytes())).module()


def _run_onnx(file: Path) -> Run | None:
    try:
        import onnxruntime  # type: ignore[import-not-found]
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(file.read_bytes())
    taken = {port.name for port in session.get_inputs()}

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True) if name in taken}
        return tuple(torch.from_numpy(x) for x in session.run(None, given))

    return run


@torch.no_grad()
def _difference(saved: StepAgent, program: StepProgram, runs: Run) -> float:
    """Largest difference over some steps, each of the two with the memory that it made itself."""
    mine = theirs = torch.zeros(LANES, program.state_size)
    largest = 0.0
    for step in range(STEPS):
        *given, _ = _inputs(saved, LANES, program.state_size, seed=step)
        one, other = program(*given, mine), runs(*given, theirs)
        mine, theirs = one[2], other[2]
        for x, y in zip((one[0], one[2]), (other[0], other[2]), strict=True):
            if x.numel():
                largest = max(largest, float((x - y).abs().max()))
    return largest


@contextmanager
def _silence() -> Iterator[None]:
    """Without what exporters say of themselves on the way: packages that they do without, names to come."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
