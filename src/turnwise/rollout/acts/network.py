"""A trained network of acts in action: what it thinks of a talk, and which act it chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from turnwise.data.acts.pack import ActSymbols, pack_acts
from turnwise.data.episode import Episode
from turnwise.losses.policy import advantage_logits
from turnwise.models.agents.act_critic import ActClone, ActCritic, ActNetwork, ActValues
from turnwise.models.agents.settings import MemorySpec
from turnwise.rollout.acts.chooser import Choice, Prefix, draw
from turnwise.run.errors import InputError
from turnwise.run.files.whole import whole_file

SETTINGS, WEIGHTS = "network.json", "network.safetensors"


@dataclass(frozen=True)
class ActActing:
    """How a network's values become a choice."""

    beta: float | None = None
    """Strength of the values, in nats per standard deviation of the return; none: the best act."""
    support: float = 0.0
    """Least probability of an act under the clone, as a share of its likeliest act's."""
    return_std: float = 1.0
    """That standard deviation, of the conversations that the values learnt from."""


@dataclass(frozen=True)
class NetworkChooser:
    """Chooses by a clone, or by a clone and the values beside it; values are in the units of the task.

    `allowed` [A] bool are the acts that may be chosen: those that somebody can say.
    """

    module: ActClone | ActCritic
    network: ActNetwork
    symbols: ActSymbols
    acting: ActActing = ActActing()
    allowed: tuple[bool, ...] | None = None

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """The next act in each talk, with the clone's probabilities and the values in its trace."""
        policy, values = self.read(talks)
        chances = self.probabilities(policy, values).double().numpy()  # [N, A]
        found = []
        for i, rng in enumerate(rngs):
            trace: dict[str, Any] = {"clone": policy[i].softmax(-1).tolist()}
            if values is not None:
                trace |= {"q": values.q[:, i, 0].amin(0).tolist(), "v": float(values.v[i, 0])}
            act = draw(chances[i], rng)
            if values is not None:
                trace["chosen_q"] = trace["q"][act]
            found.append(Choice(act, chances[i] / chances[i].sum(), trace))
        return found

    @torch.inference_mode()
    def read(self, talks: Sequence[Prefix]) -> tuple[Float[Tensor, "N V"], ActValues | None]:
        """At each talk's next turn: the clone's logits; and all values, if any, [.., N, 1, ..]."""
        # An act that is not chosen yet stands at the end; no feature of what comes before it depends on it.
        waiting = [
            Episode(
                observations=np.append(self.symbols.observations(t.first, t.answers), 0),
                actions=np.append(t.acts, 0),
                rewards=np.zeros(len(t) + 1),
                terminated=False,
                truncated=True,
            )
            for t in talks
        ]
        batch = pack_acts(waiting, gamma=1.0)
        here = torch.tensor([len(t) for t in talks])
        batch = replace(batch, decisions=here.unsqueeze(-1))  # [N, 1]
        self.module.eval()
        if isinstance(self.module, ActClone):
            return self.module(batch)[:, 0], None
        values = self.module(batch)
        return values.logits[:, 0], values

    def probabilities(self, logits: Float[Tensor, "N V"], values: ActValues | None) -> Float[Tensor, "N V"]:
        """Of every act, by `acting`: a policy that is drawn from, or 1 for the best act."""
        logp = logits.log_softmax(-1)
        out = torch.zeros_like(logp, dtype=torch.bool)
        if self.allowed is not None:
            out |= ~torch.tensor(self.allowed)
            logp = logp.masked_fill(out, -torch.inf).log_softmax(-1)
        out |= logp.exp() < self.acting.support * logp.exp().amax(-1, keepdim=True)
        if values is None:
            return logp.masked_fill(out, -torch.inf).softmax(-1)
        q = values.q[:, :, 0].amin(0)  # [N, V]
        if self.acting.beta is None:
            best = q.masked_fill(out, -torch.inf).argmax(-1)
            return torch.nn.functional.one_hot(best, q.shape[-1]).to(q)
        strength = self.acting.beta / self.acting.return_std
        guided = advantage_logits(logp, q - values.v, strength)  # v [N, 1]
        return guided.masked_fill(out, -torch.inf).softmax(-1)

    def save(self, folder: Path) -> None:
        """Settings as JSON and weights as safetensors, into a folder that is there."""
        weights = {k: v.detach().cpu().contiguous() for k, v in self.module.state_dict().items()}
        settings = {
            "network": {**self.network._asdict(), "memory": asdict(self.network.memory)},
            "symbols": asdict(self.symbols),
            "acting": asdict(self.acting),
            "allowed": self.allowed,
        }
        with whole_file(folder / WEIGHTS) as part:
            save_file(weights, part)
        with whole_file(folder / SETTINGS) as part:
            part.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_network(folder: Path) -> NetworkChooser:
    """What `NetworkChooser.save` wrote. InputError for anything else."""
    file = folder / SETTINGS
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        network = ActNetwork(**{**read["network"], "memory": MemorySpec(**read["network"]["memory"])})
        module = network.build()
        module.load_state_dict(load_file(folder / WEIGHTS))
        allowed = None if read["allowed"] is None else tuple(map(bool, read["allowed"]))
        chooser = NetworkChooser(
            module.eval().requires_grad_(False),
            network,
            ActSymbols(**read["symbols"]),
            ActActing(**read["acting"]),
            allowed,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as e:
        raise InputError(f"{file}: expected a network of acts as it was saved ({type(e).__name__})") from e
    return chooser
