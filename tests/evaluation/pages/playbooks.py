"""Playbooks made by hand, for tests of their page."""

from __future__ import annotations

from typing import Any

from turnwise.evaluation.measures.playbook.schema import Act, Phrase, Playbook, Talk, Turn

ODD = "<b>Is the lamp on?</b> & \"then\" 'what'"


def figure(mean: float, half: float | None = None, n: int | None = None) -> Any:
    """A figure with a symmetric interval, or with none."""
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return {"mean": mean, "low": low, "high": high, "n": n}


def act(sentence: str | None, name: str = "", q: float = 0.1) -> Act:
    """An act as the page shows it."""
    return {
        "name": name,
        "sentence": sentence,
        "count": 120,
        "examples": [],
        "logged_return": figure(-0.2, 0.05, 120),
        "q": q,
        "q_start": q,
        "planned": 0.5,
    }


def phrase(sentence: str | None, name: str = "") -> Phrase:
    """An answer or an opening."""
    return {"name": name, "sentence": sentence, "count": 10}


def turn(
    said: str, did: int, heard: str | None, answer: int, belief: list[float] | None, **more: Any
) -> Turn:
    """A turn of a conversation."""
    return {
        "said": said,
        "act": did,
        "distance": 0.0,
        "heard": heard,
        "answer": answer,
        "heard_distance": None if heard is None else 0.0,
        "probability": 0.4,
        "reward": 0.0,
        "belief": belief,
        **more,
    }  # type: ignore[return-value]


def playbook(**changes: Any) -> Playbook:
    """A router is broken or its line is: ask for the lamp, then advise. A sentence looks like markup."""
    talk: Talk = {
        "id": "live-1",
        "source": "live",
        "opening": "My internet <i>is</i> gone.",
        "first": 0,
        "first_belief": [0.6, 0.4],
        "turns": [
            turn(ODD, 0, "No, it is dark.", 1, [0.93, 0.07]),
            turn("Please restart it.", 1, "What do you mean by zorb?", 3, [0.9, 0.1], heard_distance=1.7,
                 impossible=True, probability=0.0001),
            turn("I send somebody.", 2, None, 0, None, fallback=True, reward=0.9, probability=None),
        ],
        "worth": 0.9,
        "ended": "terminated",
        "hidden": {"fault": "router"},
    }  # fmt: skip
    book: Playbook = {
        "title": "Router desk",
        "unit": "",
        "confidence": 0.95,
        "worth": [
            {"role": "predicted", "name": "promised by its model", **figure(0.58, 0.01, 20)},
            {"role": "true", "name": "earned when it spoke", **figure(0.5, 0.02, 2000)},
            {"role": "logged", "name": "logged agent", **figure(-0.31, 0.02, 8000)},
            {"role": "clone", "name": "its clone", **figure(-0.3, 0.03, 500)},
            {"role": "optimum", "name": "exact optimum", **figure(0.5675)},
        ],
        "bounds": {"lower": 0.5791, "upper": 0.5801, "seconds": 3.2, "stopped": "gap"},
        "states": [
            {
                "name": "A",
                "start": 0.6,
                "share": 0.7,
                "traits": [
                    {"kind": "answer", "symbol": 1, "after": 0, "here": 0.83, "elsewhere": 0.05},
                    {"kind": "reward", "symbol": None, "after": 1, "here": 0.9, "elsewhere": -0.1},
                ],
            },
            {
                "name": "B",
                "start": 0.4,
                "share": 0.3,
                "traits": [{"kind": "opening", "symbol": 1, "after": None, "here": 0.5, "elsewhere": 0.1}],
            },
        ],
        "acts": [act(ODD, "ask lamp"), act("Please restart it."), act("I send somebody.", q=-0.3)],
        "answers": [
            phrase(None, "(nothing)"),
            phrase("No, it is dark."),
            phrase("Yes, it shines."),
            phrase(None, "other"),
        ],
        "openings": [phrase("My internet is gone."), phrase("It has been slow since the storm.")],
        "looks": [
            {
                "act": 0,
                "before": [0.6, 0.4],
                "information": 0.4,
                "answers": [
                    {"answer": 1, "probability": 0.52, "after": [0.96, 0.04]},
                    {"answer": 2, "probability": 0.46, "after": [0.2, 0.8]},
                ],
                "ends": 0.0,
                "rest": 0.02,
            },
            {"act": 1, "before": [0.6, 0.4], "information": 0.001, "answers": [], "ends": 0.0, "rest": 1.0},
        ],
        "graph": {
            "nodes": [
                {"turn": 0, "act": 0, "probability": 1.0, "belief": [0.6, 0.4]},
                {"turn": 1, "act": 1, "probability": 0.52, "belief": [0.96, 0.04]},
                {"turn": 1, "act": 2, "probability": 0.46, "belief": [0.2, 0.8]},
                {"turn": 2, "act": 2, "probability": 0.1, "belief": [0.3, 0.7]},
            ],
            "edges": [
                {"source": 0, "target": 1, "answers": [1], "probability": 0.52},
                {"source": 0, "target": 2, "answers": [2], "probability": 0.46},
                {"source": 1, "target": 3, "answers": [2, 3, 0], "probability": 0.19},
            ],
            "ends": [0.0, 0.8, 1.0, 1.0],
            "openings": [[(0, 0.8), (1, 0.2)], [], [], []],
            "left_out": 0.02,
            "longest": 5,
        },
        "talks": [talk, {**talk, "id": "", "source": "log", "hidden": None, "worth": None}],
        "fit": {
            "predictors": [
                {"kind": "model", "name": "this model", **figure(1.31, 0.02)},
                {"kind": "one-step", "name": "no hidden state: the last answer alone", **figure(1.52, 0.02)},
                {"kind": "n-gram", "name": "3-grams of acts", **figure(1.4, 0.02)},
                {"kind": "true", "name": "the true model", **figure(1.29, 0.02)},
            ],
            "choices": [
                {"states": n, **figure(x, 0.02)} for n, x in ((1, 1.52), (2, 1.31), (3, 1.312), (4, 1.32))
            ],
            "chosen": 2,
            "conversations": 800,
        },
        "warnings": [
            {"kind": "wording", "gain": figure(0.001, 0.004)},
            {"kind": "dropped", "gain": figure(0.03, 0.01), "note": "by the words that came before"},
        ],
    }
    return {**book, **changes}  # type: ignore[typeddict-item]
