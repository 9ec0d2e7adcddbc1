"""Tasks by name and one's own: what is found, what is refused and in which words."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from turnwise.envs.dialogue import Message, Reference, Response
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.negotiation.task import Negotiation
from turnwise.envs.tasks.postcards.task import Postcards
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.recipes.own_task import CheckedTask
from turnwise.recipes.settings.words import parse_settings
from turnwise.recipes.tasks import TASKS, find_task, gold_of
from turnwise.rollout.agent import Agent
from turnwise.run.errors import InputError, SettingError

ECHO = '''
from turnwise.envs.dialogue import Message, Reference, Response


class Echo:
    """The partner repeats what it hears. Each word costs `price`."""

    def __init__(self, price=0.5):
        self.price = price

    def reset(self, lanes, seeds):
        return [(Message("user", f"say {seed}"),) for seed in seeds]

    def step(self, lanes, replies):
        worths = [-self.price * len(r.split()) for r in replies]
        return [Response((Message("user", "."),), worth, terminated=True) for worth in worths]

    def hidden(self, lane):
        return {}

    def rows(self, conversations, seed):
        for i in range(conversations):
            said = [{"role": "user", "content": f"say {seed}"}, {"role": "assistant", "content": str(i)}]
            yield {"id": str(i), "messages": said, "outcome": -self.price}

    def references(self):
        return [Reference("silence", "optimum", 0.0)]


class Named(Echo):
    name = "echo chamber"


def failing(price):
    raise RuntimeError("no customers today")


def silent():
    return Echo(0.0)


half_a_task = dict
number = 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in that has somebody's own task."""
    (tmp_path / "echo_task.py").write_text(ECHO)
    (tmp_path / "needs_more.py").write_text("import a_module_that_nobody_has\n")
    (tmp_path / "broken_file.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_built_in_tasks_know_what_they_are_worth() -> None:
    """An optimum is above what the logs earned, and above all that is known besides (which may be more than
    the logs earned: a car dealer who names one price at once earns more than its logs)."""
    for name in TASKS:
        task = find_task(name)
        best, *others = sorted(task.references(), key=lambda r: -r.mean)
        assert best.role == "optimum" and all(r.mean < best.mean for r in others)
        assert task.known("behaviour") in [r.mean for r in others if r.role == "behaviour"]
        assert [row["id"] for row in task.rows(2, 0)] == [row["id"] for row in task.rows(5, 0)][:2]
        assert isinstance(task.live().reset([0], [1])[0][0], Message)


def test_an_estimated_reference_has_an_interval_and_an_exact_one_none() -> None:
    """The writer's mean gold is 0.80 +- 1.07 a card (19,200 cards), so 9,600 cards give 0.80 +- 0.02."""
    best, writer, _ = find_task("postcards").references()
    assert (best.low, best.mean) == (None, pytest.approx(4.63))
    assert writer.low is not None and writer.high is not None
    assert writer.high - writer.low == pytest.approx(2 * 1.96 * 1.07 / 9600**0.5, rel=0.05)
    assert writer.mean == pytest.approx(0.80, abs=0.04)


def test_a_task_object_of_a_built_in_class_is_that_task() -> None:
    held_out = Postcards().split()[1]
    task = find_task(Postcards(held_out))
    assert (task.name, set(task.feedback)) == ("postcards", {"pairs", "rankings", "likes", "scores"})
    assert task.live().reset([0], [3])[0] in held_out
    assert find_task(HelpDesk()).about == TASKS["helpdesk"].about


@pytest.mark.usefixtures("own")
def test_ones_own_task_is_found_in_the_working_directory() -> None:
    """Three words at 0.25 each cost 0.75."""
    task = find_task("echo_task:Echo", {"price": 0.25})
    live = task.live()
    assert live.reset([4], [7]) == [(Message("user", "say 7"),)]
    assert live.step([4], ["one two three"])[0].reward == -0.75
    assert [row["outcome"] for row in task.rows(2, 0)] == [-0.25, -0.25]
    assert task.references() == [Reference("silence", "optimum", 0.0)]
    assert (task.name, task.about) == (
        "echo_task:Echo",
        "The partner repeats what it hears. Each word costs `price`.",
    )
    assert find_task("echo_task:Named").name == "echo chamber"
    assert find_task(HelpDesk()).name == "helpdesk"


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("chess", {}, "task is 'chess'; expected one of dealer, helpdesk, "),
        ("no_such_module:Task", {}, "expected a module in "),
        ("needs_more:Task", {}, "it needs a_module_that_nobody_has"),
        ("broken_file:Task", {}, "found ZeroDivisionError: division by zero"),
        (
            "echo_task:Ecco",
            {},
            "expected a class or function of echo_task: Message, Reference, Response, Echo",
        ),
        ("echo_task:number", {}, "expected a class or function; found int"),
        ("echo_task:failing", {"price": 1}, "found RuntimeError: no customers today"),
        (
            "echo_task:failing",
            {},
            "task_settings is None; expected settings of the task echo_task:failing: price",
        ),
        (
            "echo_task:half_a_task",
            {},
            "expected a task with reset, step, hidden; dict lacks reset, step, hidden",
        ),
        ("echo_task:Echo", {"prize": 1}, "task_settings is 'prize=1'; expected settings of the task "),
        ("helpdesk", {"parts": 3}, "expected settings of the task helpdesk: unseen_wordings, outcome_at_end"),
        ("echo_task:silent", {"parts": 3}, "expected settings of the task echo_task:silent: it has none"),
    ],
)
def test_what_is_no_task_is_refused_in_the_words_of_who_wrote_it(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingError) as error:
        find_task(name, settings).live()
    assert message in str(error.value)


class Wrong(HelpDesk):
    """A task whose answers are replaced."""

    def __init__(self, openings: object = None, responses: object = None, hidden: object = None) -> None:
        super().__init__()
        self.answers = openings, responses, hidden

    def reset(self, lanes, seeds):  # type: ignore[no-untyped-def]
        return self.answers[0] or super().reset(lanes, seeds)

    def step(self, lanes, replies):  # type: ignore[no-untyped-def]
        return self.answers[1] or super().step(lanes, replies)

    def hidden(self, lane):  # type: ignore[no-untyped-def]
        return self.answers[2] or super().hidden(lane)


HI = Message("user", "hi")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            Wrong([(HI,), (HI,), (HI,)]),
            "reset was given 2 lanes; expected a list with one answer for each, found 3",
        ),
        (
            Wrong([(HI,), ()]),
            "reset, lane 5: expected at least one message before the agent's first turn; found none",
        ),
        (Wrong([(HI,), "hi"]), "reset, lane 5: expected a tuple of messages; found 'hi'"),
        (
            Wrong([({"content": "hi"},), (HI,)]),
            "reset, lane 3: expected Message(role, content); found {'content'",
        ),
        (Wrong([(Message("", "hi"),), (HI,)]), "lane 3: expected a message whose role is text; found ''"),
        (Wrong(None, [Response((HI,), 0.0)]), "step was given 2 lanes; expected a list with one answer"),
        (
            Wrong(None, [Response((HI,), math.nan)] * 2),
            "step, lane 3: expected a finite number as the reward; found nan",
        ),
        (Wrong(None, [Response((HI,), "1")] * 2), "expected a finite number as the reward; found '1'"),  # type: ignore[arg-type]
        (
            Wrong(None, [Response((), 0.0)] * 2),
            "expected a message to the agent, or an end of the conversation",
        ),
        (
            Wrong(None, [Response((), 0.0, True, True)] * 2),
            "expected at most one of terminated and truncated",
        ),
        (Wrong(None, [None, None]), "expected a Response; found None"),
        (Wrong(None, None, 3), "hidden, lane 3: expected a mapping (it may be empty); found 3"),
    ],
)
def test_a_mistake_in_a_task_is_named_with_its_lane(wrong: Wrong, message: str) -> None:
    task = CheckedTask(wrong, "shop")
    with pytest.raises(InputError) as error:
        task.reset([3, 5], [0, 1])
        task.step([3, 5], ["Please test the screen"] * 2)
        task.hidden(3)
    assert str(error.value).startswith("task shop: ") and message in str(error.value)


def test_settings_are_read_as_numbers_words_and_truth() -> None:
    words = ["price=0.5", "lanes=3", "quick=true", "corpus=data/x=y", "none=null"]
    expected = {"price": 0.5, "lanes": 3, "quick": True, "corpus": "data/x=y", "none": None}
    assert parse_settings(words) == expected
    for wrong in (["price"], ["=3"], ["a-b=3"], ["a=1", "a=2"]):
        with pytest.raises(SettingError, match="task_settings"):
            parse_settings(wrong)


def test_gold_is_that_of_the_task_and_of_its_prompts_only() -> None:
    task = Postcards()
    prompt = task.prompts()[0]
    gold = find_task("postcards").gold()
    assert gold is not None and gold.worth(prompt, "hello mum") == task.gold(prompt, "hello mum")
    assert find_task("helpdesk").gold() is None
    with pytest.raises(SettingError, match="gold is 'helpdesk'; expected postcards"):
        gold_of("helpdesk", [])
    with pytest.raises(InputError, match="gold of postcards: prompt: expected the request for a postcard"):
        gold_of("postcards", [(HI,)])


def test_a_task_without_feedback_says_so() -> None:
    with pytest.raises(
        SettingError, match="feedback is 'pairs'; expected none of it: the task helpdesk has logs"
    ):
        find_task("helpdesk").feedback_rows("pairs", 1, 0)
    with pytest.raises(SettingError, match="expected one of pairs, rankings, likes, scores"):
        find_task("postcards").feedback_rows("stars", 1, 0)


def test_a_saved_policy_takes_the_partners_place(tmp_path: Path) -> None:
    """A language model of random weights speaks for the partner; nothing exact is known of it."""
    tokenizer = train_tokenizer(["i want the book and the hats deal <selection>"] * 5, 320, 200)
    torch.manual_seed(0)
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=200, eos=0, pad=1)
    Agent(lm, tokenizer).with_acting(max_new_tokens=6).save(tmp_path / "policy")
    task = find_task("negotiation", {"partner": str(tmp_path / "policy")})
    live = task.live()
    seeds = list(range(12))
    heard = [len(messages) > 1 for messages in live.reset(seeds, seeds)]
    assert any(heard) and not all(heard)  # the first word is drawn
    for response in live.step(seeds, ["I want the book."] * 12):
        assert response.terminated or response.truncated or response.messages[0].role == "user"
    assert task.references() == []
    assert find_task(Negotiation()).about == TASKS["negotiation"].about
