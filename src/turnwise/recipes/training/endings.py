"""How a run on logs ends: with what the conversations that it held out say that its policy is worth.

Nothing of a run is chosen by what it holds out: not the number of states, nor of acts, nor of passes. So the
held-out part may both measure what was learnt and estimate what it is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.splits.choices import chosen, evenly, unrated
from turnwise.data.splits.heldout import Split
from turnwise.evaluation.estimates.shortfalls import MIN_CONVERSATIONS
from turnwise.recipes.estimating.leaks import BESIDES
from turnwise.recipes.estimating.resolution import per_of
from turnwise.recipes.measuring.estimate import FILE, Estimating
from turnwise.recipes.settings.measure import EstimateSettings
from turnwise.recipes.trained import ActPolicy, Policy
from turnwise.recipes.training.machine import Machine
from turnwise.run.errors import InputError
from turnwise.run.folder import write_json
from turnwise.run.rehearsal import at_most

LINES = ("worth now", "worth then", "how sure", "why", "so far", "safe")
"""lines of an estimate that end a run; the page has all of them"""
ENOUGH = 200
"""conversations below which a larger part is recommended. On HelpDesk so many vouch for 40% of the way to a
Monte-Carlo policy of acts (beta 4), 400 for 50% and 800 for 80%"""
CLONE = "it imitates the logged agent, and how well it does that is measured"


def end_with_estimate(
    policy: ActPolicy | Policy,
    split: Split,
    logs: Logs,
    by: str | None,
    facts: Mapping[str, Any],
    m: Machine,
) -> dict[str, Any]:
    """estimate.json of the run folder, and what of it stands in the run's result, as `estimate`.

    `split` is of `logs`; `by` is the column by which it was made: its equal values are not independent then.
    Nothing is estimated from what was learnt from, but it may teach what the logged agent would do, for which
    a small part that was held out is too little. Where nothing can be estimated, the result says why
    (`none`), and the run does not fail.
    """
    held, learnt = split.held, split.learnt
    reason = _too_little(held)
    if reason is None:
        part = Logs(list(held), f"{logs.source}, held out", logs.reading)
        s = EstimateSettings(seed=m.seed, cluster=by if by is not None and "=" not in by else None)
        s = replace(s, resamples=at_most(200, s.resamples), talks=at_most(20, s.talks))
        # What the models of a plan promise stands in its result, which is not written yet.
        policy = replace(policy, result=dict(facts))
        try:
            per_of(policy, None, s)
            world = policy if isinstance(policy, ActPolicy) else None
            one = Estimating(policy, world, part, s, m.silent)
            rest = replace(one.rest(), besides=chosen(learnt, evenly(len(learnt), BESIDES)))
            found = one.document(rest, one.answer(rest))
        except InputError as error:
            reason = str(error)
        else:
            write_json(m.out / FILE, found)
            lines = [line for line in found["lines"] if line.startswith(LINES)] + _more(
                len(rest.logs), len(logs)
            )
            told = {key: found[key] for key in ("conversations", "worth", "safe")}
            return {"estimate": told | {"reached": found["curve"]["reached"], "lines": lines}}
    return {"estimate": {"none": reason}}


def _too_little(held: Sequence[Dialogue]) -> str | None:
    """Why nothing can be said of conversations that were held out; None if something can."""
    if len(held) < MIN_CONVERSATIONS:
        return (
            f"{len(held):,} conversations were held out, and fewer than {MIN_CONVERSATIONS} say nothing; "
            f"{ENOUGH:,} or more would (heldout is their share), or other logs"
        )
    if unrated(held).all():
        return "nobody said how the conversations that were held out went"
    return None


def _more(held: int, of: int) -> list[str]:
    """A line about what a larger part would say, if this one is small."""
    if held >= ENOUGH:
        return []
    share = ENOUGH / of
    what = f"heldout {share:.2g}, {ENOUGH:,} of them," if share <= 0.5 else f"{ENOUGH:,} others"
    return [f"would help: {held:,} conversations are few; {what} would say more"]
