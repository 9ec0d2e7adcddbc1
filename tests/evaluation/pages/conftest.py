"""Run folders and comparisons on disk, as training and evaluation write them, and their pages."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from turnwise.evaluation.pages.report import write_report

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import the files beside them

_CARD = {
    "file": "logs/desk-2.jsonl",
    "conversations": 6000,
    "heldout": 300,
    "agent_turns": {"mean": 4.2, "min": 1, "max": 8},
    "messages": 55304,
    "tokens": {"mean": 73.7, "max": 136, "total": 442432},
    "return": {"mean": -0.3, "std": 0.9, "min": -1.35, "max": 1.0, "low": -0.32, "high": -0.28},
    "histogram": {"edges": [-1.5, -0.5, 0.5, 1.5], "counts": [3000, 1000, 2000]},
    "terminated": 5990,
    "truncated": 10,
    "propensities": "all",
    "metadata_keys": ["fault"],
    "duplicates": 3,
    "over_context": 0,
}
_ROWS = [
    {
        "name": "BC",
        "role": "baseline",
        "run": "bc",
        "mean": -0.3,
        "low": -0.34,
        "high": -0.26,
        "episodes": 2000,
        "success": 0.31,
    },
    {
        "name": "ILQL",
        "run": "ilql",
        "mean": 0.36,
        "low": 0.324,
        "high": 0.396,
        "episodes": 2000,
        "success": 0.8,
    },
    {"name": "MC", "run": "mc", "mean": 0.18, "low": 0.14, "high": 0.224, "episodes": 2000, "success": 0.6},
]
_REFERENCES = [
    {"name": "exact optimum", "role": "optimum", "mean": 0.5675, "note": "computed by backward induction"},
    {
        "name": "behaviour policy",
        "role": "behaviour",
        "mean": -0.31,
        "low": -0.33,
        "high": -0.29,
        "note": "wrote the logs",
    },
]


_METRICS = {
    "loss": {"what": "loss", "unit": "nats per token", "loss": True},
    "q": {"what": "Q", "unit": "units of return", "panel": "Q and V"},
    "v": {"what": "V", "unit": "units of return", "panel": "Q and V"},
}


_CRITIC = {
    "estimates": {"gamma": 1.0, "gamma_within_turn": 1.0, "improved": True},
    "heldout": 300,
    "cut": 2,
    "learnt": 5690,
    "judged_by": "calibrated_r2",
    "returns": {"mean": -0.3, "std": 0.1, "low": -1.25, "high": 0.95},
    "knows": True,
    "beside_words": "equal",
    "sentence": "On 300 conversations that it has not seen, this critic beats a constant and does as well.",
    "shift": {
        "beta": 14.0,
        "per": "token",
        "mean": 1.5,
        "p95": 3.25,
        "far": 3.0,
        "sentence": "Beta 14 moves.",
    },
}
_INTERVAL = {"value": 0.25, "low": 0.1, "high": 0.4}
_FIGURES = dict.fromkeys(("r2", "calibrated_r2", "spearman", "slope", "intercept"), _INTERVAL)
_PLACE = {"turns": 300, "constant": -0.3, "critic": _FIGURES, "words": _FIGURES}
_CRITIC |= {name: dict.fromkeys(("first", "last", "all"), _PLACE) for name in ("v", "q")}


def _conversation(i: int = 1) -> dict:
    """Two turns of the agent, scored per token: advantages .01 + .03 = .04, then -.1."""
    first = [
        {"text": "Test", "logp": -0.5, "v": 0.2, "q": 0.21, "advantage": 0.01},
        {"text": " screen", "logp": -0.7, "v": 0.21, "q": 0.24, "advantage": 0.03},
    ]
    second = [{"text": "Fix", "logp": -2.25, "v": 0.7, "q": 0.6, "advantage": -0.1}]
    return {
        "id": f"e-{i:04d}",
        "return": 0.95,
        "ended": "terminated",
        "source": "policy",
        "hidden": {"fault": "screen"},
        "messages": [
            {"role": "user", "content": "It is dark."},
            {"role": "assistant", "content": "Test screen", "reward": -0.05, "tokens": first},
            {"role": "user", "content": "The screen fails."},
            {"role": "assistant", "content": "Fix", "reward": 1.0, "tokens": second},
        ],
    }


def _metrics() -> str:
    """300 steps with a training loss, 3 of them with a held-out loss and values."""
    rows = [{"step": s, "seconds": s / 2, "loss": 3 - s / 150, "grad_norm": 1.0} for s in range(1, 301)]
    rows += [
        {"step": s, "heldout/loss": 3.2 - s / 150, "heldout/q": 0.3, "heldout/v": 0.1}
        for s in (100, 200, 300)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _write_critic(folder: Path, **changes) -> Path:
    (folder / "critic.json").write_text(json.dumps(_CRITIC | changes))
    return folder


def _write_run(folder: Path, algorithm: str, talks: list[dict], **config) -> Path:
    folder.mkdir(parents=True)
    if algorithm != "bc":
        _write_critic(folder)
    asked = {"algorithm": algorithm, "logs": "logs/desk-2.jsonl", "seed": 7, "width": 128, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(asked))
    (folder / "result.json").write_text("{}\n")
    facts = {"name": algorithm, "title": algorithm.upper(), "what": "a method", "family": "logs"}
    (folder / "algorithm.json").write_text(json.dumps(facts | {"metrics": _METRICS}))
    env = {"packages": {"torch": "2.9.1"}, "cores": 2, "command": f"turnwise train {algorithm} --seed 7"}
    (folder / "env.json").write_text(json.dumps(env))
    (folder / "card.json").write_text(json.dumps(_CARD))
    (folder / "metrics.jsonl").write_text(_metrics())
    (folder / "conversations.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    return folder


def _write_evaluation(folder: Path, **changes) -> None:
    result = {"task": "helpdesk", "score": "mean return", "episodes": 2000, "seed": 1, "confidence": 0.95}
    result |= {"mean": 0.36, "low": 0.324, "high": 0.396, "success": 0.8, "turns": 4.2}
    result |= {"same_task": True}
    result["references"] = [{"name": "exact optimum", "role": "optimum", "mean": 0.5675}]
    (folder / "evaluation.json").write_text(json.dumps(result | changes))


def _write_comparison(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    asked = {
        "title": "HelpDesk",
        "aim": "Learn a better desk.",
        "command": "turnwise demo --seed 7",
        "task": "helpdesk",
        "score": "mean return",
        "higher_is_better": True,
        "confidence": 0.95,
        "rows": _ROWS,
        "references": _REFERENCES,
        "runs": {"bc": "bc", "ilql": "ilql"},
        "said": {"sentence": "Take ILQL.", "page": "better/report.html"},
    }
    (folder / "comparison.json").write_text(json.dumps(asked | changes))
    return folder


@pytest.fixture(scope="session")
def conversation() -> Callable[..., dict]:
    """A conversation as the agent's critic scores it."""
    return _conversation


@pytest.fixture(scope="session")
def write_critic() -> Callable[..., Path]:
    """Writes what a run's critic knows."""
    return _write_critic


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Writes a run folder."""
    return _write_run


@pytest.fixture(scope="session")
def write_evaluation() -> Callable[..., None]:
    """Writes evaluation.json into a run folder."""
    return _write_evaluation


@pytest.fixture(scope="session")
def write_comparison() -> Callable[..., Path]:
    """Writes a comparison of BC, ILQL and MC."""
    return _write_comparison


@pytest.fixture
def three_rows() -> list[dict[str, Any]]:
    """BC (the baseline), ILQL and MC."""
    return copy.deepcopy(_ROWS)


@pytest.fixture
def two_references() -> list[dict[str, Any]]:
    """The optimum and the behaviour policy."""
    return copy.deepcopy(_REFERENCES)


@pytest.fixture(scope="session")
def read(parse_html: Callable[[str], Any]) -> Callable[[Path], Any]:
    """Writes the page of a folder and parses it."""
    return lambda folder: parse_html(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory, read) -> Any:
    """The page of a comparison: BC without a critic, ILQL with one and 15 conversations; MC has no folder."""
    folder = tmp_path_factory.mktemp("comparison")
    plain = _conversation()
    for message in plain["messages"]:
        message.pop("tokens", None)
    _write_run(folder / "bc", "bc", [plain])
    _write_run(folder / "ilql", "ilql", [_conversation(i) for i in range(1, 16)], beta=8.0)
    return read(_write_comparison(folder))


@pytest.fixture(scope="module")
def lone(tmp_path_factory, read) -> Any:
    """The page of one run that was never evaluated."""
    return read(_write_run(tmp_path_factory.mktemp("lone") / "ilql", "ilql", [_conversation()]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return _write_run(tmp_path / "ilql", "ilql", [_conversation()])
