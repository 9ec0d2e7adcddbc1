"""Where EM begins: rare ends must not decide what the states are."""

from __future__ import annotations

import numpy as np

from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.exact.learning.fit import Effort, fit
from turnwise.exact.learning.sequences import Sequences


def test_states_are_what_answers_tell_and_not_how_talks_happened_to_end() -> None:
    """1,000 HelpDesk logs with acts on both sides: 4 states are the 4 faults, and each fix pays best in its
    own. Climbs whose ends begin apart merge two faults here: no state is the one's, and one is nobody's."""
    rows = list(HelpDesk(acts=True).rows(1000, 0))
    names = sorted({m["act"] for r in rows for m in r["messages"] if m["role"] == "assistant"})
    heard = sorted({m["act"] for r in rows for m in r["messages"] if m["role"] == "user"})
    acts, answers, rewards, lengths = [], [], [], []
    for row in rows:
        said = [i for i, m in enumerate(row["messages"]) if m["role"] == "assistant"]
        lengths.append(len(said))
        for i in said:
            after = row["messages"][i + 1 : i + 2]
            acts.append(names.index(row["messages"][i]["act"]))
            answers.append(1 + heard.index(after[0]["act"]) if after else 0)
            rewards.append(row["messages"][i]["reward"])
    data = Sequences(
        np.array(acts), np.array(answers), np.array(rewards), np.append(0, np.cumsum(lengths)),
        np.ones(len(rows), bool), np.zeros(len(rows)), len(names), 1 + len(heard),
    )  # fmt: skip
    model = fit(data, 4, np.random.default_rng(0), effort=Effort(iterations=100))
    assert model.pay is not None
    pays = model.pay.means[1, [i for i, name in enumerate(names) if "fix" in name]]  # [4 fixes, S]
    assert sorted(pays.argmax(1).tolist()) == [0, 1, 2, 3]
    assert (pays.max(1) > 0.8).all()
