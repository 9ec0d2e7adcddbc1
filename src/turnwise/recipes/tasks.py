"""Dialogue tasks by name: the built-in ones, a row each, and anybody's own.

`find_task` takes a built-in name, `package.module:Task` for a class (or a function that returns a task) of
one's own, or a task object. Its answer is a `Task`, which makes the live task and its logs, and says what is
known of it.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from turnwise.envs.dialogue import (
    TASK_COLUMN,
    DialogueTask,
    HasReferences,
    HasRows,
    HasSettings,
    Message,
    Reference,
    Role,
    signed,
    task_words,
)
from turnwise.envs.tasks.annotators import Kind
from turnwise.envs.tasks.dealer.task import CarDealer
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.maze.task import Maze
from turnwise.envs.tasks.negotiation.task import Negotiation, Split
from turnwise.envs.tasks.postcards.logs import postcard_feedback
from turnwise.envs.tasks.postcards.task import Postcards
from turnwise.envs.tasks.travel.task import TravelDesk
from turnwise.envs.tasks.twenty.task import TwentyQuestions
from turnwise.recipes.own_task import CheckedTask, import_task, module_of, name_of
from turnwise.recipes.settings.words import parse_settings
from turnwise.run.errors import InputError, SettingError

if TYPE_CHECKING:
    import numpy as np

    from turnwise.recipes.held_out import HeldOut
    from turnwise.rollout.replies import Reply
    from turnwise.rollout.rewards import Reward

Prompt = tuple[Message, ...]
Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What is known of a task before anybody talks to it."""

    name: str
    """what people call it"""
    about: str
    """what it is, in one sentence"""
    make: Callable[..., DialogueTask]
    """the live task, from the task's settings as keyword arguments"""
    kind: type | None = None
    """the class of the live task, if `make` is not that class itself"""
    feedback: Mapping[str, Callable[[int, int], Rows]] = field(default_factory=dict)
    """kinds of feedback that can be made, each with its rows (how many, seed)"""
    worth: Callable[[Sequence[Message], str], float] | None = None
    """the true worth of a reply to a prompt, if it is known; ValueError if the prompt is not the task's"""
    prompts: Callable[[], tuple[list[Prompt], list[Prompt]]] | None = None
    """prompts to learn from and prompts held out, if the task has a fixed set of them"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """what `make` is given"""
    spec: str | None = None
    """what `find_task` finds it by, if that is not its name"""
    stands_for: str | None = None
    """of a partner from logs: the words of the task that these come from, if they name one"""
    learnt: bool = False
    """whether it is a partner from logs"""
    held: HeldOut | None = None
    """of a partner from logs: what it has learnt from, if it says so"""

    @property
    def words(self) -> str:
        """The task and its settings as one types them, by which logs and runs name where they come from."""
        task = self._made()
        own = task.settings if isinstance(task, HasSettings) else {}
        return task_words(self.spec or self.name, {**own, **self.settings})

    def live(self) -> DialogueTask:
        """The task to talk to, with a check of everything that it answers. SettingError for its settings."""
        return CheckedTask(self._made(), self.name)

    def rows(self, conversations: int, seed: int) -> Rows:
        """Conversations in the log format, the same ones for the same seed. SettingError if it has none."""
        task = self._made()
        if not isinstance(task, HasRows):
            expected = "a task that can write logs (with a method rows(conversations, seed))"
            raise SettingError("task", self.name, expected)
        return signed(task.rows(conversations, seed), self.words)

    def feedback_rows(self, kind: str, n: int, seed: int) -> Rows:
        """Rows of feedback of that kind. SettingError if the task has no such feedback."""
        if kind not in self.feedback:
            kinds = ", ".join(self.feedback)
            expected = f"none of it: the task {self.name} has logs only" if not kinds else f"one of {kinds}"
            raise SettingError("feedback", kind, expected)
        return signed(self.feedback[kind](n, seed), self.words)

    def references(self) -> list[Reference]:
        """Returns that are known of the task; none if nothing is."""
        task = self._made()
        return list(task.references()) if isinstance(task, HasReferences) else []

    def known(self, role: Role) -> float | None:
        """The mean of the first reference in that role."""
        return next((r.mean for r in self.references() if r.role == role), None)

    def gold(self) -> Gold | None:
        """The truth about replies, if it is known."""
        return None if self.worth is None else Gold(self.name, self.worth)

    def _made(self) -> DialogueTask:
        try:
            signature = inspect.signature(self.make)
        except ValueError:  # compiled callables have none: they check their arguments themselves
            return self.make(**self.settings)
        try:
            signature.bind(**self.settings)
        except TypeError:
            named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            known = [name for name, p in signature.parameters.items() if p.kind in named]
            given = " ".join(f"{k}={v}" for k, v in self.settings.items())
            expected = f"settings of the task {self.name}: {', '.join(known) or 'it has none'}"
            raise SettingError("task_settings", given or None, expected) from None
        try:
            return self.make(**self.settings)
        except SettingError as e:
            if e.name not in self.settings:
                raise
            # The caller knows the task's setting as one of `task_settings`, and nothing else of that name.
            raise SettingError("task_settings", f"{e.name}={e.value}", e.expected) from e


def _negotiation(
    corpus: str | None = None,
    partner: str | None = None,
    split: Split | None = None,
    notes: bool = True,
    partner_model: str | None = None,
    partner_instructions: str | None = None,
) -> Negotiation:
    """`Negotiation`, whose partner may be a saved policy: a run, or a folder or name of a language model.

    It may be a server too, by its address: then `partner_model` is a model that it serves (none: its first),
    and `partner_instructions` a system message for it alone.
    """
    if partner is not None and partner.startswith(("http://", "https://")):
        from turnwise.rollout.partners.endpoint import SpeakingServer

        server = SpeakingServer(partner, partner_model, partner_instructions)
        return Negotiation(corpus=corpus, partner=server, split=split, notes=notes)
    for name, value in (("partner_model", partner_model), ("partner_instructions", partner_instructions)):
        if value is not None:
            raise SettingError(name, value, "a server's address as the partner beside it")
    if partner is None:
        return Negotiation(corpus=corpus, split=split, notes=notes)
    from turnwise.rollout.acts.agent import ActAgent
    from turnwise.rollout.load import load, load_agent
    from turnwise.rollout.partners.speakers import SpeakingActs, SpeakingModel

    found = load(partner)
    speaker = SpeakingActs(found) if isinstance(found, ActAgent) else SpeakingModel(load_agent(partner))
    return Negotiation(corpus=corpus, partner=speaker, split=split, notes=notes)


PARTNER, ACTS = "partner.json", "acts.json"
"""the files by which the folder of a partner from logs is known, and that of an agent of acts"""
TASKS: Mapping[str, Task] = {
    "dealer": Task(
        name="dealer",
        about="Find out what moves a buyer and what it can pay, look up what is there, and name a price.",
        make=CarDealer,
    ),
    "helpdesk": Task(
        name="helpdesk",
        about="Find which of four parts of a customer's device is broken, by asking, and name the fix.",
        make=HelpDesk,
    ),
    "maze": Task(
        name="maze",
        about="Find the way out of a maze by saying where to go, told where one is or only where walls are.",
        make=Maze,
    ),
    "negotiation": Task(
        name="negotiation",
        about="Divide books, hats and balls with somebody whose values are hidden, by talking.",
        make=_negotiation,
        kind=Negotiation,
    ),
    "postcards": Task(
        name="postcards",
        about="Write a postcard as asked: one turn, whose true worth is a known rule over words.",
        make=Postcards,
        feedback={kind: partial(postcard_feedback, kind) for kind in get_args(Kind)},
        worth=Postcards().gold,
        prompts=Postcards().split,
    ),
    "travel": Task(
        name="travel",
        about="Find out what holiday a guest wants, in talk that hardly repeats, and make one offer in time.",
        make=TravelDesk,
    ),
    "twenty": Task(
        name="twenty",
        about="Find out which of 32 things somebody has in mind, by asking what is true of it and guessing.",
        make=TwentyQuestions,
    ),
}
"""the built-in tasks"""


def find_task(task: str | DialogueTask | Any, settings: Mapping[str, Any] | None = None) -> Task:
    """A built-in task by name, one's own as `package.module:Task`, or a task object, with its settings.

    A partner from logs is a task too, and so are the learnt models of a plan: what `fit` returned, or the
    folder of the run. SettingError if there is no such task, or if what was found is no task.
    """
    settings = settings or {}
    if (partner := _partner_of(task)) is not None:
        if settings:
            raise SettingError("task_settings", " ".join(settings), "none: a partner from logs has none")
        return partner
    if not isinstance(task, str):
        if settings:
            given = " ".join(f"{k}={v}" for k, v in settings.items())
            raise SettingError("task_settings", given, "none beside a task object, which is made already")
        kind = type(task)
        spec = f"{module_of(kind)}:{kind.__qualname__}"
        return _row_of(name_of(task, kind.__name__), kind, lambda: task, spec)
    if task in TASKS:
        return replace(TASKS[task], settings=settings)
    if ":" not in task:
        raise SettingError("task", task, choices())
    factory = import_task(task)
    return replace(_row_of(name_of(factory, task), factory, factory, task), settings=settings)


def _partner_of(given: Any) -> Task | None:
    """The task of a partner from logs, or of a plan's learnt models, itself or its folder; else None."""
    if isinstance(given, str | Path):
        if not (is_partner(given) or (Path(given) / "policy" / ACTS).is_file()):
            return None
        name, found = str(given), _loaded(given)
    else:
        found, name = given, ""
    from turnwise.recipes.trained import ActPolicy, Counterpart  # only here: it takes seconds

    if isinstance(found, Counterpart | ActPolicy):
        name = name or found.name

    if isinstance(found, Counterpart):
        about = "The other side of logged conversations, as it was learnt from them."
        known = {"spec": name, "stands_for": found.fitted.task, "learnt": True, "held": found.held}
        return Task(name, about, found.live, **known)
    if isinstance(found, ActPolicy) and (live := model_task(found)) is not None:
        about = "Models of logged acts, worded with the sentences of the log."
        known = {"spec": name, "stands_for": found.task, "learnt": True, "held": found.held}
        return Task(name, about, live, **known)
    return None


def _loaded(folder: str | Path) -> Any:
    from turnwise.recipes.opened import load

    return load(folder)


def model_task(policy: Any) -> Callable[[], DialogueTask] | None:
    """What makes the task of a plan's learnt models; None for an agent without any that know rewards."""
    from turnwise.rollout.acts.model_task import ModelTask
    from turnwise.rollout.acts.plan import PlanChooser
    from turnwise.rollout.acts.simulated import siblings

    chooser = policy.agent.chooser
    if not isinstance(chooser, PlanChooser) or chooser.planner.model.pay is None:
        return None
    models = siblings(chooser.planner.model, chooser.copies)
    return lambda: ModelTask(models, policy.agent.codes)


def is_partner(given: Any) -> bool:
    """Whether this is the folder of a partner from logs, or of its run."""
    if not isinstance(given, str | Path):
        return False
    return any((place / PARTNER).is_file() for place in (Path(given), Path(given) / "partner"))


def choices() -> str:
    """What can be given as a task."""
    known = ", ".join(TASKS)
    return f"one of {known}, your own as package.module:Task, or the run of a partner from logs or of a plan"


def task_called(words: str) -> Task:
    """The task that logs or a run name, with its settings (`Task.words`). SettingError if it is not found."""
    try:
        name, *settings = shlex.split(words)
    except ValueError as e:  # an open quote, or nothing at all
        raise SettingError("task", words, choices()) from e
    return find_task(name, parse_settings(settings))


def task_of(logs: Iterable[Any]) -> str | None:
    """The words of the task that logs, or feedback, come from; None if any row names none or another one."""
    words = None
    for i, row in enumerate(logs):
        words = row.metadata.get(TASK_COLUMN) if i == 0 else words
        # The first row without one answers for all of them.
        if not isinstance(words, str) or not words.strip() or row.metadata.get(TASK_COLUMN) != words:
            return None
    return words


def _row_of(name: str, documented: Any, make: Callable[..., DialogueTask], spec: str) -> Task:
    """The built-in row of a task of that class, else a row of what the class says of itself."""
    for row in TASKS.values():
        if documented in (row.make, row.kind):
            return replace(row, make=make)
    about = (inspect.getdoc(documented) or name).splitlines()[0]
    return Task(name=name, about=about, make=make, spec=spec)


@dataclass(frozen=True)
class Gold:
    """The truth about replies to a task's prompts, as a reward."""

    task: str
    """the task's name, for errors"""
    rule: Callable[[Sequence[Message], str], float]
    """what a reply to a prompt is worth"""

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """[n], in units of gold."""
        import numpy as np

        return np.array([self.worth(r.prompt, r.text) for r in replies])

    def worth(self, prompt: Sequence[Message], text: str) -> float:
        """The worth of one reply. InputError if the prompt is none of the task's."""
        try:
            return self.rule(prompt, text)
        except ValueError as e:
            raise InputError(f"gold of {self.task}: {e}") from e


def gold_of(name: str | None, prompts: Iterable[Prompt]) -> Reward | None:
    """The truth of the built-in task of that name, or None without a name.

    SettingError if there is none of that name, InputError if a prompt is none of the task's.
    """
    if name is None:
        return None
    gold = TASKS[name].gold() if name in TASKS else None
    if gold is None:
        known = ", ".join(row.name for row in TASKS.values() if row.worth is not None)
        raise SettingError("gold", name, f"{known}, the built-in task whose truth is known")
    for prompt in prompts:
        gold.worth(prompt, "")
    return gold
