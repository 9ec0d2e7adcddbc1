"""A POMDP learnt from logged acts, and a plan in it: model-based reinforcement learning under partial sight.

    logs of acts --EM--> T(s'|s,a), O(o|a,s'), R(s,a), ends   (a controlled hidden Markov model, Rabiner 1989)
    models of resampled logs --> their mixture                (which of them holds is hidden as well)
    mixture --SARSOP--> alpha vectors --one step of look-ahead--> an act at the belief

Policies of dialogue as plans in a POMDP are old (Young et al. 2013), with states made by hand. Here they are
learnt. A planner takes errors of thin rows for luck: what it expects in its own model is an upper guess. So
models are also fitted to bootstrap resamples of the logs, and the plan

    mixture    is made in all of them at once: which one holds is one more thing that is hidden, so that an
               act that pays in one model only is worth a part of it (Duff 2002, over finitely many models)
    quantile   is the best plan of one model by its lower quantile over all models
    main       is that of the main model, as if it were true

What it is worth in each model, by simulation, is its predicted value with an interval over resamples.

How we differ from Doshi-Velez 2009: the number of states is chosen held out and not sampled; rewards are
evidence while the model is learnt and never while the agent acts, so that what a state pays is fitted once
more to what the belief foresees (`exact/learning/foreseen.py`); ends and the clock are part of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from turnwise.data.acts.talks import ActLogs
from turnwise.exact.learning.choose import Choice, Size, choose
from turnwise.exact.learning.climb import Notes, Watch
from turnwise.exact.learning.data import longest_of, paid_by_step
from turnwise.exact.learning.fit import Effort, fit
from turnwise.exact.learning.foreseen import foreseen
from turnwise.exact.learning.model import GO_ON, STOP, LearntModel
from turnwise.exact.learning.planner import Planner, allowed_only, mixture, simulated_returns
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.sarsop.solve import Solution, solve
from turnwise.run.checks import INSIDE, NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check, check_choice
from turnwise.run.errors import InputError, SettingError
from turnwise.run.metrics import Metric

Way = Literal["mixture", "quantile", "main"]
Hidden = Literal["chosen", "moves", "stays", "both"]


@dataclass(frozen=True)
class Config:
    """Settings of a POMDP learnt from acts, and of the plan in it."""

    states: int | None = None
    """Hidden states; none: as many as held-out conversations tell apart."""
    hidden: Hidden = "chosen"
    """moves: the hidden state may change with every turn; stays: it is the same for a whole conversation
    (what somebody wants, which of many things it is), so that many more can be told apart; both: kinds of
    conversations with a few phases each; chosen: whichever explains held-out conversations better."""
    most_states: int = 32
    """Most hidden states that may move to choose from; more than 8 are tried if 8 are not enough."""
    most_stays: int = 64
    """Most hidden states that stay to choose from."""
    smoothing: float | None = None
    """Imagined counts in each row of the model; none: chosen on held-out conversations."""
    longest: int | None = None
    """Turns after which every conversation has ended; none: found in the logs."""
    starts: int = 6
    """Starts of EM, of which the best goes on."""
    iterations: int = 300
    """Iterations of EM, at most."""
    resamples: int = 4
    """Models fitted on resampled logs, beside the main one."""
    plan: Way = "mixture"
    """mixture: plan in all models at once, not knowing which one holds; quantile: the plan of one model that
    is best at worst; main: the plan of the main model."""
    quantile: float = 0.2
    """Which quantile over models a plan is chosen by, if plan is quantile."""
    discount: float = 1.0
    """Discount per turn."""
    least: int = 10
    """Times that an act must be logged to be planned with."""
    gap: float = 0.01
    """Gap between the bounds of the plan's value at which the search ends, in units of the return."""
    trials: int = 500
    """Trials of the search, at most."""
    simulations: int = 1000
    """Simulated conversations in each model, by which a plan is valued."""
    patience: int = 3
    """Turns in a row of which the model can make nothing, after which the policy that was given speaks.
    Without one the plan goes on with what it believed."""
    voice: Literal["logged", "model"] = "logged"
    """logged: a sentence of the logs; model: a reply of the policy that is read as the act."""
    tries: int = 4
    """Replies of the policy from which one is chosen, if voice is model."""

    def __post_init__(self) -> None:
        check(
            self,
            states=ONE_OR_MORE,
            most_states=ONE_OR_MORE,
            most_stays=ONE_OR_MORE,
            smoothing=NOT_NEGATIVE,
            longest=ONE_OR_MORE,
            starts=ONE_OR_MORE,
            iterations=ONE_OR_MORE,
            resamples=NOT_NEGATIVE,
            quantile=INSIDE,
            discount=SHARE,
            least=ONE_OR_MORE,
            gap=POSITIVE,
            trials=ONE_OR_MORE,
            simulations=ONE_OR_MORE,
            patience=ONE_OR_MORE,
            tries=ONE_OR_MORE,
        )
        check_choice(
            self,
            hidden=("chosen", "moves", "stays", "both"),
            plan=("mixture", "quantile", "main"),
            voice=("logged", "model"),
        )


MOVES = (*range(1, 9), 12, 16, 24, 32, 48, 64)
"""numbers of states that may move to choose from, as far as `most_states` allows"""
STAYS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""numbers of states that stay to choose from, as far as `most_stays` allows"""
BOTH = tuple(Size(classes, phases) for phases in (2, 3, 4) for classes in (2, 3, 4, 6, 8, 12, 16))
"""kinds of conversations and their phases to choose from, as far as `most_states` allows"""
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""imagined counts to choose from"""
METRICS: dict[str, Metric] = {
    "log_likelihood": Metric(
        "log-likelihood of what was seen",
        "nats per turn",
        about="ln P of answers, ends and rewards, with that of the imagined counts; EM never lowers it",
    ),
}


@dataclass(frozen=True)
class Learnt:
    """Models of the logs."""

    choice: Choice | None
    """how the number of states was chosen; None if it was given"""
    models: tuple[LearntModel, ...]
    """the main one, then those of resampled logs, whose states were learnt from its"""
    smoothing: float


@dataclass(frozen=True)
class Planned:
    """A plan and what the models say of it."""

    planner: Planner
    copies: int
    """how many models its belief is over"""
    solution: Solution
    """bounds in the model that it was made in"""
    worth: np.ndarray
    """[models], its value in each of them, by simulation"""

    def facts(self) -> dict[str, Any]:
        """What a result has of it: bounds in the model that it was made in, and its value in each model."""
        s = self.solution
        bounds = {"lower": s.lower, "upper": s.upper, "seconds": s.seconds, "stopped": s.stopped}
        return {"bounds": bounds, "in_models": self.worth.tolist()}


def sequences_of(logs: ActLogs) -> Sequences:
    """Logged talks as EM reads them. InputError if there are none."""
    if not len(logs):
        raise InputError("no conversation to learn from")
    return Sequences(
        actions=np.concatenate([t.acts for t in logs]),
        observations=np.concatenate([t.answers for t in logs]),
        rewards=np.concatenate([t.rewards for t in logs]) if logs.rated else None,
        offsets=np.append(0, np.cumsum([len(t) for t in logs])),
        ended=np.array([t.terminated for t in logs], bool),
        firsts=np.array([t.first for t in logs]),
        action_symbols=len(logs.acts),
        observation_symbols=len(logs.answers),
        first_symbols=len(logs.openings),
    )


@dataclass(frozen=True)
class Sizes:
    """What `choose` has to choose from."""

    moves: tuple[int, ...] = ()
    stays: tuple[int, ...] = ()
    both: tuple[Size, ...] = ()


def sizes_of(c: Config, steps: int) -> Sizes:
    """What the settings leave to choose from, for data of so many steps. SettingError if that is nothing."""
    moves, stays, most = MOVES, STAYS, min(c.most_states, steps)
    if c.hidden == "stays":
        stays = (1, *STAYS)  # otherwise one state is one that may move
    if c.states is not None:
        moves = stays = (c.states,)
    found = Sizes(
        tuple(k for k in moves if k <= most or k == c.states),
        tuple(k for k in stays if k <= min(c.most_stays, steps) or k == c.states),
        tuple(x for x in BOTH if (x.states <= most if c.states is None else x.states == c.states)),
    )
    if c.hidden == "both" and not found.both:
        kinds = sorted({x.states for x in BOTH})
        if c.states is not None:
            raise SettingError("states", c.states, f"kinds times phases: {', '.join(map(str, kinds))}")
        raise SettingError("most_states", c.most_states, f"{kinds[0]} or more, and as many turns in the logs")
    return found if c.hidden == "chosen" else Sizes(**{c.hidden: getattr(found, c.hidden)})


def learn(c: Config, data: Sequences, seed: int, notes: Notes, watch: Watch | None = None) -> Learnt:
    """The main model, and one for each resample of the logs. `notes` let a stopped run go on."""
    effort = Effort(starts=c.starts, iterations=c.iterations)
    longest: int | str = "auto" if c.longest is None else c.longest
    if longest == "auto" and c.discount == 1 and longest_of(data) is None and paid_by_step(data):
        longest = int(data.lengths.max())  # the clock that a plan needs in any case (`with_an_end`)
    rng = np.random.default_rng((seed, 0))
    choice = None
    if c.states is None or c.smoothing is None or c.hidden in ("chosen", "both"):
        choice = choose(
            data,
            rng,
            **vars(sizes_of(c, len(data.actions))),
            smoothing=STRENGTHS if c.smoothing is None else (c.smoothing,),
            longest=longest,
            effort=effort,
            notes=notes,
            watch=watch,
        )
        main, smoothing = choice.model, choice.smoothing
    else:
        smoothing = c.smoothing
        main = fit(
            data,
            c.states,
            rng,
            longest=longest,
            smoothing=smoothing,
            phases=1 if c.hidden == "stays" else None,
            effort=effort,
            notes=notes,
            watch=watch,
        )
    phases = None if choice is None or choice.size.classes == 1 else choice.size.phases
    models = [foreseen(main, data)]
    for k in range(c.resamples):
        drawn = np.random.default_rng((seed, 1, k)).integers(len(data), size=len(data))
        name = f"resample{k}"
        if (kept := notes.get(name)) is not None:
            models.append(LearntModel.from_arrays(kept))
            continue
        again = fit(
            data.select(drawn),
            main.shape[0],
            np.random.default_rng((seed, 2, k)),
            longest=main.longest,
            smoothing=smoothing,
            phases=phases,
            begin=main,
            effort=replace(effort, iterations=max(1, c.iterations // 5)),
            watch=watch,
        )
        again = foreseen(again, data.select(drawn))
        notes.put(name, again.arrays())
        models.append(again)
    return Learnt(choice, tuple(models), smoothing)


def with_an_end(model: LearntModel, longest: int) -> LearntModel:
    """The model with a clock to plan by: nobody has talked for longer than `longest` turns.

    Without a discount a plan needs an end. What the cut pays is what going on pays.
    """
    if model.longest is not None or model.pay is None:
        return model
    means = model.pay.means.copy()
    means[STOP] = means[GO_ON]
    return replace(model, longest=longest, pay=replace(model.pay, means=means, late=np.zeros(longest)))


def make_plan(
    c: Config,
    models: Sequence[LearntModel],
    allowed: np.ndarray,
    seed: int,
    progress: Callable[[float, float, float], None] | None = None,
) -> Planned:
    """Plan with the `allowed` acts (indices), and value the plan in every model."""
    if c.plan == "mixture" and len(models) > 1:
        return _plan(c, mixture(models), len(models), models, allowed, seed, progress)
    if c.plan == "quantile" and len(models) > 1:
        plans = [_plan(c, m, 1, models, allowed, seed, progress) for m in models]
        return max(plans, key=lambda p: float(np.quantile(p.worth, c.quantile)))
    return _plan(c, models[0], 1, models, allowed, seed, progress)


def _plan(
    c: Config,
    model: LearntModel,
    copies: int,
    models: Sequence[LearntModel],
    allowed: np.ndarray,
    seed: int,
    progress: Callable[[float, float, float], None] | None,
) -> Planned:
    problem = allowed_only(model, allowed).pomdp(c.discount)
    # A number of trials and no deadline: the plan must not depend on how busy the machine is.
    found = solve(problem, gap=c.gap, deadline=None, most=c.trials, progress=progress)
    planner = Planner.of(model, allowed, found.policy, c.discount)
    worth = [
        simulated_returns(planner, world, c.simulations, np.random.default_rng((seed, 3, k))).mean()
        for k, world in enumerate(models)
    ]
    return Planned(planner, copies, found, np.array(worth))


def train(
    c: Config,
    data: Sequences,
    allowed: np.ndarray,
    seed: int,
    notes: Notes,
    watch: Watch | None = None,
    progress: Callable[[float, float, float], None] | None = None,
) -> tuple[Learnt, Planned]:
    """Learn the models, then plan. InputError if there are no rewards, or if no act may be taken."""
    if data.rewards is None:
        raise InputError("nobody said how the conversations went: there is nothing to plan for")
    if not len(allowed):
        raise InputError(
            f"no act of the agent has a sentence and was logged {c.least} times; expected a smaller least, "
            "or coarser acts"
        )
    learnt = learn(c, data, seed, notes, watch)
    models = learnt.models
    if c.discount == 1:
        models = tuple(with_an_end(m, int(data.lengths.max())) for m in models)
    return learnt, make_plan(c, models, allowed, seed, progress)
