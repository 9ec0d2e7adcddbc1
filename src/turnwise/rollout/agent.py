"""A trained agent on disk and in action: a language model, maybe with a critic that guides its choices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import ROLES, Dialogue
from turnwise.data.files.messages import Roles, read_message
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.losses.policy import action_logp, advantage_logits
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.learning.precision import as_it_came
from turnwise.models.lm.lora import Adapter
from turnwise.models.lm.parts import context_of, trunk_of
from turnwise.models.lm.policies import GuidedPolicy, LmPolicy
from turnwise.models.lm.pretrained import generation_of, save_lm, share_files
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.protocol import LaneModel
from turnwise.rollout.engines.rerank import Reranker, value_of_utterance
from turnwise.rollout.engines.sampler import Sampler
from turnwise.rollout.engines.servers.engine import Engine
from turnwise.run.errors import InputError
from turnwise.run.files.digests import LISTED, checksums
from turnwise.run.files.whole import whole_file, whole_folder

SETTINGS, GENERATION = "turnwise.json", "generation_config.json"
TRUNK = "critic_trunk"
"""entry of the settings: whether the critic reads by a trunk of its own, or by the policy's"""
WITH_CRITIC = (
    "a critic has a say in what this policy says (beta is not 0), and an engine does not know it; "
    "expected no engine, or beta 0"
)


@dataclass(frozen=True)
class Acting:
    """How an agent chooses what to say."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    beta: float = 0.0
    """Strength of the critic, in nats per standard deviation of the return; 0 leaves the LM alone."""
    return_std: float = 1.0
    """That standard deviation, of the conversations that the critic learnt from."""
    adv_clip: float | None = None
    """Largest upward shift of a log-probability by a token critic, in nats."""
    proposals: int = 1
    """Utterances that are proposed at each turn, of which the critic chooses one by the value of the whole.
    At 1 a critic of tokens shifts the log-probability of each token instead."""
    max_new_tokens: int = 64

    @property
    def strength(self) -> float:
        """Nats per unit of the critic's values."""
        return self.beta / self.return_std


@dataclass(frozen=True)
class Agent:
    """An agent that speaks: a language model, its tokenizer, and a critic of tokens, of turns or none."""

    lm: Any
    tokenizer: Any
    critic: TokenCritic | TurnCritic | None = None
    acting: Acting = Acting()
    adapter: Adapter | None = None
    """What is saved in place of the language model: adapters, and the name of the base that `lm` is with them
    folded in."""
    critic_adapter: Adapter | None = None
    """What is saved in place of the critic's trunk: how it differs from the language model's."""

    @cached_property
    def chat(self) -> ChatFormat:
        """Messages to ids and back; made once, since it renders the template a dozen times."""
        return ChatFormat(self.tokenizer)

    def with_acting(self, **changes: Any) -> Agent:
        """The same agent, choosing differently."""
        return replace(self, acting=replace(self.acting, **changes))

    @property
    def reranks(self) -> bool:
        """Whether it proposes several utterances and says one of them."""
        a, per_turn = self.acting, isinstance(self.critic, TurnCritic)
        return self.critic is not None and a.beta != 0 and (per_turn or a.proposals > 1)

    def token_policy(self) -> tuple[LmPolicy | GuidedPolicy, Decoding]:
        """What gives a token its logits when the agent speaks, and what is made of them before one is drawn.

        Of an agent that `reranks` it is how it proposes, and not what it says of that.
        """
        self.lm.eval()
        a, policy = self.acting, LmPolicy(self.lm)
        if isinstance(self.critic, TokenCritic) and a.beta and not self.reranks:
            self.critic.eval()
            guided = GuidedPolicy(policy, self.critic, beta=a.strength, clip=a.adv_clip, top_k=a.top_k)
            return guided, Decoding(a.temperature, None, a.top_p)
        return policy, Decoding(a.temperature, a.top_k, a.top_p)

    def lane_model(self, lanes: int, stop: int, engine: Engine | None = None) -> LaneModel:
        """Something that speaks in `lanes` conversations at a time: an `engine`, if there is one.

        InputError for a critic that has a say in words and an engine, whose servers know nothing of it.
        """
        a, (policy, decoding) = self.acting, self.token_policy()
        context = context_of(self.lm)
        if engine is not None:
            if not isinstance(policy, LmPolicy) or self.reranks:
                raise InputError(WITH_CRITIC)
            return engine.lanes(
                policy, lanes=lanes, stop=stop, decoding=decoding, max_new_tokens=a.max_new_tokens
            )
        if self.critic is not None and self.reranks:
            self.critic.eval()
            return Reranker(
                policy,
                self.critic.trunk,
                value_of_utterance(self.critic),
                lanes=lanes,
                proposals=a.proposals,
                beta=a.strength,
                context=context,
                stop=stop,
                decoding=decoding,
                max_new_tokens=a.max_new_tokens,
                read_stop=isinstance(self.critic, TurnCritic),
            )
        return Sampler(
            policy,
            lanes=lanes,
            context=context,
            stop=stop,
            decoding=decoding,
            max_new_tokens=a.max_new_tokens,
        )

    def reply(self, messages: Sequence[Message | Mapping[str, str]], seed: int | None = None) -> str:
        """What the agent says next in a conversation of messages `{"role": ..., "content": ...}`.

        Without messages the agent begins the conversation. The reply is a function of the messages and of
        `seed`; None draws a new seed, so that another call may give another reply (not at temperature 0).
        It ends at the agent's stop token, after `acting.max_new_tokens`, or where the context is full.
        InputError for a message that is none, for a conversation whose last message is the agent's own, and
        for one that leaves no room for a reply in the model's context.
        """
        ids = self.read(messages_of(messages))
        context = context_of(self.lm)
        if len(ids) >= context:
            raise InputError(
                f"the conversation has {len(ids)} tokens, which leaves no room for a reply in the model's "
                f"context of {context}; expected a shorter conversation"
            )
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        model = self.lane_model(1, self.chat.stop)
        model.reset(0, seed)
        model.submit(0, ids)
        (utterance,) = model.collect()
        return self.chat.text(utterance.ids)

    def read(self, messages: tuple[Message, ...]) -> list[int]:
        """Ids before a reply. What the agent said earlier is encoded as its turns in a log are."""
        if any(m.role == "assistant" for m in messages):
            (row,) = self.chat.encode([Dialogue(messages, terminated=False)])
            return row.ids.tolist()
        return self.chat.opening(messages)

    @torch.inference_mode()
    def values(self, row: Tokens) -> Mapping[str, np.ndarray]:
        """What the agent thinks of a conversation, per decision: `logp`, and `q`, `v` if it has a critic.

        Per token for a token critic (or none), per turn for a turn critic; q and v in units of the return.
        With a token critic also `shift`: what the critic adds to the log-probability when the agent acts, in
        nats (before `top_k` rules tokens out); it is not there if the agent `reranks`, which shifts no token.
        What follows the last action is not read: the partner's last message may reach beyond the context.
        """
        row = row.window(0, int(np.flatnonzero(row.action)[-1]) + 1)
        if isinstance(self.critic, TurnCritic):
            batch = pack_turns([row], gamma=1.0)
            out = self.critic(batch.inputs, batch.decisions, batch.ends)
            return {"q": out.q.amin(0)[0].numpy(), "v": out.v[0, :-1].numpy()}
        batch = pack_tokens([row], gamma=1.0)
        assert batch.actions is not None
        logits = LmPolicy(self.lm)(batch.inputs, batch.decisions)
        found = {"logp": action_logp(logits, batch.actions)[0].numpy()}
        if self.critic is None:
            return found
        h = self.critic.features(batch.inputs, batch.decisions[:, :-1])
        q, v = self.critic.q_min(h), self.critic.v(h).squeeze(-1)  # [1, A, V], [1, A]
        taken = q.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        values = found | {"q": taken[0].numpy(), "v": v[0].numpy()}
        if self.reranks:
            return values
        guided = advantage_logits(
            logits.log_softmax(-1), q - v.unsqueeze(-1), self.acting.strength, self.acting.adv_clip
        )
        shift = action_logp(guided, batch.actions)[0].numpy() - found["logp"]
        return values | {"shift": shift}

    def save(self, folder: Path) -> None:
        """Write the language model, for `AutoModelForCausalLM` (or `AutoModelForSeq2SeqLM`), and the critic.

        The language model is written in the precision in which it was loaded, a critic in float32.
        What `transformers` then generates ends at our stop token, and is sampled as `acting` says. The folder
        is there whole or not at all; InputError for one that holds other things.
        """
        self.lm.generation_config = self._generation()
        settings: dict[str, Any] = {"kind": _kind(self.critic), "acting": asdict(self.acting)}
        with whole_folder(folder, SETTINGS) as part:
            if self.adapter is None:
                save_lm(part, as_it_came(self.lm), self.tokenizer)
            else:
                _save_adapter(part, self.adapter)
                self.tokenizer.save_pretrained(part)
                self.lm.generation_config.save_pretrained(part)
            if self.critic is not None:
                settings["ensemble"] = len(self.critic.q)
                if isinstance(self.critic, TokenCritic):
                    settings["rank"] = self.critic.rank
                trunk: Any = self.critic.trunk
                settings[TRUNK] = "policy" if trunk is trunk_of(self.lm) else "own"
                if self.critic_adapter is not None:
                    settings[TRUNK] = "adapted"
                    _save_adapter(part / "critic", self.critic_adapter.based_on(".."))
                elif settings[TRUNK] == "own":
                    trunk.save_pretrained(part / "critic")
                (part / "critic").mkdir(exist_ok=True)
                state = self.critic.state_dict().items()
                heads = {k: v.contiguous() for k, v in state if not k.startswith("trunk.")}
                save_file(heads, part / "critic" / "heads.safetensors")
            share_files(part)
            settings[LISTED] = checksums(part, but=[GENERATION])  # `save_acting` changes it
            (part / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def save_acting(self, folder: Path) -> None:
        """Let this agent, saved in `folder` before, choose from now on as it does here."""
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings |= {"acting": asdict(self.acting)}
        with whole_file(folder / GENERATION) as part:
            part.write_text(self._generation().to_json_string(), encoding="utf-8")
        with whole_file(folder / SETTINGS) as part:
            part.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _generation(self) -> Any:
        a = self.acting
        return generation_of(
            self.lm,
            self.tokenizer,
            stop=self.chat.stop,
            temperature=a.temperature,
            top_k=a.top_k,
            top_p=a.top_p,
            max_new_tokens=a.max_new_tokens,
        )


ADAPTER_SETTINGS, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""as `peft` calls them"""


def _save_adapter(folder: Path, adapter: Adapter) -> None:
    """A folder that `peft` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADAPTER_SETTINGS).write_text(
        json.dumps(dict(adapter.settings), indent=2) + "\n", encoding="utf-8"
    )
    save_file(dict(adapter.weights), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def messages_of(given: Sequence[Message | Mapping[str, str]]) -> tuple[Message, ...]:
    """A conversation to be answered, in every form in which a log may have it.

    InputError that names the message and the field which is wrong.
    """
    if isinstance(given, str | Mapping):  # either can be iterated over, and neither holds messages
        raise InputError(f"messages is {given!r}; expected a list of messages, each with role and content")
    messages = []
    for i, m in enumerate(given):
        if not isinstance(m, Message | Mapping):
            raise InputError(f"messages[{i}] is {m!r}; expected a mapping with role and content")
        if isinstance(m, Message):
            if m.role not in ROLES:
                raise InputError(f"messages[{i}].role: expected one of {', '.join(ROLES)}; found {m.role!r}")
            messages.append(m)
            continue
        try:  # in every form in which a log may have it: what was learnt from can be answered too
            messages.append(read_message(dict(m), "", "messages", i, Roles()))
        except InputError as error:
            raise InputError(str(error).removeprefix(": ")) from None
    if messages and messages[-1].role == "assistant":
        raise InputError(
            f"messages[{len(messages) - 1}].role is 'assistant'; expected the last message to be one that "
            "the agent answers"
        )
    return tuple(messages)


def _kind(critic: nn.Module | None) -> Literal["lm", "token_critic", "turn_critic"]:
    if critic is None:
        return "lm"
    return "token_critic" if isinstance(critic, TokenCritic) else "turn_critic"
