"""Negotiation: divide books, hats and balls with somebody whose values you do not know, by talking.

Deal or No Deal (Lewis et al. 2017) as a task that needs no corpus: the published rules draw the scenarios,
and a script (`script`) speaks for the partner, in English that is read exactly (`words`). With the corpus,
the scenarios are real ones, and a reading that was learnt from people closes the deals (`reading`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from turnwise.envs.dialogue import Message, Reference, Response, signed, task_words
from turnwise.envs.tasks.negotiation import exact
from turnwise.envs.tasks.negotiation.corpus import Recording, read_negotiations, scenarios_of
from turnwise.envs.tasks.negotiation.game import NegotiationTable
from turnwise.envs.tasks.negotiation.logs import corpus_logs, scripted_logs
from turnwise.envs.tasks.negotiation.reading import AllocationReader, fit_reader
from turnwise.envs.tasks.negotiation.scenarios import draw_scenario, one_of
from turnwise.envs.tasks.negotiation.script import ScriptedNegotiator
from turnwise.envs.tasks.negotiation.words import read_deal
from turnwise.envs.tasks.table import Against, Speaker
from turnwise.run.errors import InputError, SettingError

Split = Literal["train", "val", "test"]


class Negotiation:
    """A `DialogueTask`: the agent's reward is its points, 0 to 10, when the talk ends.

    The system message has the counts and the agent's values. `<selection>` closes the talk and takes the
    offer that the partner has made; an own offer counts if the partner has accepted it. Twenty utterances
    without `<selection>` end the talk without a deal. All ends are terminations; only a model or a server
    as the partner can cut a talk, by failing.
    """

    name = "negotiation"

    def __init__(
        self,
        corpus: str | Path | None = None,
        partner: Speaker | None = None,
        split: Split | None = None,
        notes: bool = True,
    ) -> None:
        """`corpus`: the folder of the published corpus (data.txt, split_of_data_rows.txt), for its scenarios.

        `partner`: who sits opposite; by default the script. `split`: the part of the corpus that scenarios
        (by default test) and logs (by default train) come from. `notes`: after each offer a message tells
        each side what closing the talk there would bring it. SettingError for what cannot work.
        """
        if partner is not None and not isinstance(partner, Speaker):
            raise SettingError(
                "partner", partner, "a speaker, with reset(lanes, seeds) and answer(lanes, seen)"
            )
        if split not in (None, "train", "val", "test"):
            raise SettingError("split", split, "train, val or test")
        if split is not None and corpus is None:
            raise SettingError("split", split, "a corpus beside it")
        self.corpus = None if corpus is None else Path(corpus)
        self.partner, self.split, self.notes = partner, split, notes
        draw, read = draw_scenario, read_deal
        if self.corpus is not None:
            tables = scenarios_of(_corpus(self.corpus), split or "test")
            if not tables:
                raise SettingError("split", split or "test", f"a split that {self.corpus} has rows of")
            draw, read = one_of(tables), _reader(self.corpus).read
        table = NegotiationTable(read, notes=notes, draw=draw)
        self._game = Against(table, partner if partner is not None else ScriptedNegotiator())

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        corpus = None if self.corpus is None else str(self.corpus)
        partner = None if self.partner is None else type(self.partner).__name__
        given = {"corpus": corpus, "partner": partner, "split": self.split}
        found: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return found if self.notes else found | {"notes": False}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """New scenarios. Who has the first word is drawn too; if it is the partner, it has spoken."""
        return self._game.reset(lanes, seeds)

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent speaks, then the partner, unless the talk is over."""
        return self._game.step(lanes, replies)

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """What the items are worth to the partner, and how many there are."""
        return self._game.hidden(lane)

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """Logs: the script against itself, or negotiations between people if there is a corpus."""
        words = task_words(self.name, self.settings)
        if self.corpus is None:
            return signed(scripted_logs(conversations, seed, notes=self.notes), words)
        people = [n for n in _corpus(self.corpus) if n.split == (self.split or "train")]
        rows = corpus_logs(people, _reader(self.corpus).read, conversations, seed, notes=self.notes)
        return signed(rows, words)

    def references(self) -> list[Reference]:
        """What is known exactly of playing against the script; nothing is known of other partners."""
        if self.corpus is not None or self.partner is not None:
            return []
        return [
            Reference(
                "best reply that knows the partner's values",
                "optimum",
                exact.informed_value(),
                note="an upper bound, by backward induction: who has to find the values out earns less",
            ),
            Reference(
                "script",
                "behaviour",
                exact.script_value(),
                note="the script against itself, as in the logs, by backward induction",
            ),
            Reference(
                "takes the first offer",
                "baseline",
                exact.first_offer_value(),
                note="by enumeration",
            ),
        ]


@lru_cache(maxsize=2)
def _corpus(folder: Path) -> list[Recording]:
    try:
        return read_negotiations(folder)
    except OSError as e:
        expected = f"a folder with data.txt and split_of_data_rows.txt ({e.strerror}: {e.filename})"
        raise SettingError("corpus", str(folder), expected) from e
    except ValueError as e:
        raise InputError(str(e)) from e


@lru_cache(maxsize=2)
def _reader(folder: Path) -> AllocationReader:
    """The reading, fitted to the training split: some ten seconds, once for a folder and a process."""
    return fit_reader(n for n in _corpus(folder) if n.split == "train")
