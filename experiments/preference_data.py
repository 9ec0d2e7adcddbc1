"""Preferences that people gave, as pairs and rankings: pleasant scenarios and convincing arguments.

    python experiments/preference_data.py --out preferences     all of it as JSONL, for `turnwise data check`

The data lie under $TURNWISE_DATA (by default ../shared/data beside the repository) and are not part of it.

- ETHICS, utilitarianism: which of two scenarios is the more pleasant for its teller. 13,738 pairs to learn
  from, 4,808 to test, 4,272 of a harder test. Hendrycks et al., "Aligning AI with shared human values", 2021.
- UKPConvArg1: which of two arguments for one side of a debate is the more convincing. 11,650 pairs and 32
  rankings of its 1,052 arguments. Habernal and Gurevych, "Which argument is more convincing?", ACL 2016.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import DATA

from turnwise.data.feedback import Pair, Prompt, Ranking
from turnwise.data.files.feedback import write_feedback
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

SPLITS = ("train", "test", "test_hard")
PLEASANT: Prompt = (Message("user", "Tell me something pleasant that happened to you."),)
MISSPELT = {"advancing-the-commond-good": "advancing-the-common-good"}
"""in the name of one file of pairs; its ranking has the right one"""


def ethics_pairs(split: str) -> list[Pair]:
    """The pairs of `train`, `test` or `test_hard`; the more pleasant scenario stands first in the file."""
    if split not in SPLITS:
        raise InputError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    file = _found(DATA / "ethics_utilitarianism" / f"util_{split}.csv")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    return [Pair(PLEASANT, a, b, id=f"{split}-{i}") for i, (a, b) in enumerate(rows, start=1)]


def convarg_pairs() -> dict[str, list[Pair]]:
    """Pairs of each side of a debate; the prompt is the words of the debate and the side."""
    found = {}
    for topic, rows in _topics("strict"):
        pairs = []
        for name, label, first, second in rows:
            chosen, rejected = (first, second) if label == "a1" else (second, first)
            pairs.append(Pair(_prompt(topic), chosen, rejected, id=name, metadata={"topic": topic}))
        found[topic] = pairs
    return found


def convarg_rankings(seed: int = 0) -> dict[str, list[Ranking]]:
    """One ranking of all arguments of each side; a lower score in the file is more convincing.

    Equal scores have equal ranks, and the arguments are shuffled, so that their order breaks no tie. If an
    argument was entered twice, word for word, its better score counts.
    """
    found = {}
    rng = np.random.default_rng(seed)
    for topic, rows in _topics("ranking"):
        best: dict[str, float] = {}
        for _, score, text in rows:
            best[text] = min(float(score), best.get(text, math.inf))
        scored = [(score, text) for text, score in best.items()]
        shuffled = [scored[i] for i in rng.permutation(len(scored))]
        scores = sorted(score for score, _ in shuffled)
        ranks = tuple(scores.index(score) + 1 for score, _ in shuffled)
        replies = tuple(text for _, text in shuffled)
        found[topic] = [Ranking(_prompt(topic), replies, ranks, id=topic, metadata={"topic": topic})]
    return found


def _topics(folder: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Each debate's side and the columns of its lines."""
    for file in sorted(_found(DATA / "ukp_convarg1" / folder).glob("*.csv")):
        lines = file.read_text(encoding="utf-8").split("\n")[1:]
        debate, _, side = file.stem.rpartition("_")
        rows = [[column.replace("<br/>", "\n").strip() for column in x.split("\t")] for x in lines if x]
        yield f"{debate}_{MISSPELT.get(side, side)}", rows


def _prompt(topic: str) -> Prompt:
    debate, side = (" ".join(part.replace("-", " ").split()) for part in topic.rsplit("_", 1))
    return (Message("user", f"{debate}: {side}"),)


def _found(path: Path) -> Path:
    if not path.exists():
        raise InputError(
            f"{path}: expected the data set there; found nothing (set TURNWISE_DATA to its folder)"
        )
    return path


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write in")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    sets = {f"ethics-{split}": ethics_pairs(split) for split in SPLITS}
    sets["convarg-pairs"] = [pair for pairs in convarg_pairs().values() for pair in pairs]
    rankings = [ranking for found in convarg_rankings().values() for ranking in found]
    for name, items in (*sets.items(), ("convarg-rankings", rankings)):
        print(f"{write_feedback(out / f'{name}.jsonl', items, overwrite=True):,} in {out / name}.jsonl")


if __name__ == "__main__":
    main()
