"""Critics on a frozen trunk: the same values as through it, read once; kept, saved, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import turnwise as tw
from turnwise.algorithms.logs import ilql, mc, turn_iql
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.rows import token_rows
from turnwise.models.lm.critics import FrozenTrunk, on_trunk
from turnwise.models.lm.parts import parameter_count, trunk_of, width_of
from turnwise.recipes.checkpoints import policy_at
from turnwise.recipes.training.learning import has_bfloat16
from turnwise.recipes.training.logs.frozen import FrozenFeatures
from turnwise.rollout.load import load_agent
from turnwise.run.errors import InputError
from turnwise.run.files.checkpoint import Checkpoints
from turnwise.run.passes import Passes

LM: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 48, "vocab": 280}
WORDS = ("win", "lose", "maybe later")


def rows_of(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two or three turns of what pays 3 and what does not; the partner says something of any length."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        messages: list[dict[str, Any]] = []
        for _ in range(int(rng.integers(2, 4))):
            messages.append({"role": "user", "content": "case " * int(rng.integers(1, 9))})
            word = WORDS[rng.integers(3)]
            messages.append({"role": "assistant", "content": word, "reward": 3.0 * (word == "win")})
        rows.append({"id": f"c{i}", "messages": messages})
    return rows


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen") / "bc"
    tw.fit(tw.BC(epochs=1.0), rows_of(40), out=folder, heldout=0.0, quiet=True, **LM)
    return folder


def learnt(clone: Path, config: Any, **settings: Any) -> tw.Policy:
    given = {
        "policy": clone,
        "heldout": 0.1,
        "quiet": True,
        "frozen_trunk": True,
        "estimate": False,
    } | settings
    return tw.fit(config, rows_of(40), **given)


def weights(policy: tw.Policy) -> dict[str, torch.Tensor]:
    assert policy.agent.critic is not None
    return policy.agent.critic.state_dict()


@pytest.mark.parametrize("algorithm", [mc, ilql, turn_iql])
def test_loss_and_gradient_of_the_heads_are_those_through_the_trunk(clone: Path, algorithm: Any) -> None:
    """In float64, for every critic; some conversations are longer than the context, and so cut into rows."""
    agent = load_agent(clone)
    lm = agent.lm.double()
    dialogues = tw.read_logs(rows_of(9), quiet=True)
    rows = [*token_rows(dialogues, agent.chat, 30)]
    assert any(row.continues for row in rows)
    (seen,) = FrozenFeatures(trunk_of(lm), width_of(lm), [rows], None).rows()
    tokens = lm.get_output_embeddings().weight
    critic = algorithm.new_critic(algorithm.Config(), trunk_of(lm), tokens, 0.5).double()
    torch.nn.init.normal_(critic.q[0].out.weight)
    on_features = on_trunk(critic, FrozenTrunk())
    c, found = algorithm.Config(), []
    for module, given in ((critic, rows), (on_features, [*seen])):
        pack: Any = pack_turns if algorithm is turn_iql else pack_tokens
        batch = pack(given, gamma=0.9, dtype=torch.float64)
        more = () if algorithm is mc else (0.3,)
        targets = () if algorithm is mc else (module,)
        total, _ = algorithm.loss(module, *targets, batch, 1.0, c, *more)
        weights = [*critic.q.parameters(), *critic.v.parameters()]
        found.append((total.detach(), torch.autograd.grad(total, weights)))
    assert_close(*found, rtol=1e-10, atol=1e-10)


def test_features_are_read_in_the_precision_that_is_asked_for(clone: Path, tmp_path: Path) -> None:
    """Under autocast they are those of the trunk under it, kept under a name of their own."""
    if not has_bfloat16(torch.device("cpu")):
        pytest.skip("a processor without bfloat16")
    agent = load_agent(clone)
    rows = [*token_rows(tw.read_logs(rows_of(3), quiet=True), agent.chat, 48)]
    trunk, wide = trunk_of(agent.lm), width_of(agent.lm)
    made = FrozenFeatures(trunk, wide, [rows], None, Passes(torch.bfloat16))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = trunk(input_ids=torch.from_numpy(rows[0].ids)[None]).last_hidden_state[0].float()
    with torch.no_grad():
        exact = trunk(input_ids=torch.from_numpy(rows[0].ids)[None]).last_hidden_state[0]
    (seen,) = made.rows()
    found = torch.from_numpy(np.asarray(seen[0].features))
    assert torch.equal(found, wanted[torch.from_numpy(rows[0].read_at)])
    assert not torch.equal(found, exact[torch.from_numpy(rows[0].read_at)])
    for settings in ({}, {"autocast": "bfloat16"}):
        learnt(clone, tw.MC(epochs=1.0), features=tmp_path / "features", **settings)
    assert len([*(tmp_path / "features").iterdir()]) == 2


@pytest.mark.parametrize("config", [tw.MC(epochs=1.0), tw.ILQL(epochs=1.0), tw.TurnIQL(epochs=1.0)])
def test_the_trunk_stays_the_policys_and_is_saved_once(clone: Path, tmp_path: Path, config: Any) -> None:
    """What was loaded says what the trained one says; the policy's weights are the clone's."""
    made = learnt(clone, config, out=tmp_path / "run")
    again, before = load_agent(tmp_path / "run"), load_agent(clone)
    assert again.critic is not None
    assert again.critic.trunk is trunk_of(again.lm)
    assert [f.name for f in (tmp_path / "run" / "policy" / "critic").iterdir()] == ["heads.safetensors"]
    heads = parameter_count(again.critic) - parameter_count(again.critic.trunk)
    assert made.result["parameters"] == heads
    assert_close(again.lm.state_dict(), before.lm.state_dict())
    said = [x.reply([{"role": "user", "content": "case"}], seed=3) for x in (made.agent, again)]
    assert said[0] == said[1]


def test_features_are_kept_for_the_next_critic_and_read_anew_for_another_policy(
    clone: Path, tmp_path: Path
) -> None:
    """One file for two critics of the same logs, the same result as without; a damaged one is read again."""
    kept = tmp_path / "deep" / "features"
    first = learnt(clone, tw.MC(epochs=1.0), features=kept)
    (file,) = kept.iterdir()
    time = file.stat().st_mtime_ns
    learnt(clone, tw.TurnIQL(epochs=1.0), features=kept)
    assert file.stat().st_mtime_ns == time
    without = learnt(clone, tw.MC(epochs=1.0))
    assert_close(weights(first), weights(without))
    file.write_bytes(file.read_bytes()[:-8])
    again = learnt(clone, tw.MC(epochs=1.0), features=kept)
    assert_close(weights(first), weights(again))
    other = tw.fit(tw.BC(epochs=1.0), rows_of(40), heldout=0.0, seed=1, quiet=True, **LM)
    tw.fit(
        tw.MC(epochs=1.0),
        rows_of(40),
        policy=other,
        features=kept,
        frozen_trunk=True,
        estimate=False,
        quiet=True,
    )
    assert len([*kept.iterdir()]) == 2


def test_its_checkpoints_are_policies(clone: Path, tmp_path: Path) -> None:
    """They hold heads alone; the last one is what the run came to."""
    made = learnt(clone, tw.MC(epochs=1.0, batch_size=10), out=tmp_path / "run", checkpoint_every=2)
    last = max(Checkpoints(tmp_path / "run").steps())
    found = policy_at(Checkpoints(tmp_path / "run").path(last), tw.load(tmp_path / "run"))
    assert isinstance(found, tw.Policy) and found.agent.critic is not None
    assert_close(weights(found), weights(made))
    assert found.agent.critic.trunk is trunk_of(found.agent.lm)


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        (tw.BC(), {"frozen_trunk": True}, "frozen_trunk is True"),
        (tw.MC(), {"frozen_trunk": True, "lora_rank": 2}, "lora_rank is 2; expected 0: a frozen trunk"),
        (tw.MC(), {"features": Path("x")}, "features is .x.; expected frozen_trunk"),
    ],
)
def test_what_does_not_go_together_is_refused(
    clone: Path, config: Any, settings: dict[str, Any], words: str
) -> None:
    start = {} if isinstance(config, tw.BC) else {"policy": clone}
    with pytest.raises(InputError, match=words):
        tw.fit(config, rows_of(4), quiet=True, **start, **settings)
