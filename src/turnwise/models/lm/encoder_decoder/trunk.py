"""The trunk of an encoder-decoder: it reads the same rows and decisions as a causal trunk does.

The encoder reads what was said before a reply, and the decoder reads the reply. A conversation has several
replies, and a batch has it as one row all the same: inside the trunk there is one pass of the encoder for
each of them. It cannot be fewer. An encoder reads in both directions, so that the partner's next message
changes what it makes of the first word, and nothing of an earlier pass is still right. (The other way would
be to encode the opening alone and to let the decoder read all that follows. Partners' words would then stand
where the model was pretrained to find its own.) A conversation of n replies costs n readings of its past; a
prompt with G replies is encoded once for all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from turnwise.models.lm.encoder_decoder.turns import Turns
from turnwise.run.errors import InputError

CONTEXT = 512
"""tokens of a row where a model with relative positions names no longest one: what T5 was pretrained with"""


class EncoderDecoder(nn.Module):
    """The encoder and the decoder of a model of `transformers`, without its output layer.

    The modules are the model's own. `start` is the id that the decoder reads before a reply.
    """

    def __init__(self, encoder: Any, decoder: Any, config: Any):
        super().__init__()
        self.encoder, self.decoder, self.config = encoder, decoder, config
        self.start = start_of(config)

    @classmethod
    def of(cls, model: Any) -> EncoderDecoder:
        """The trunk of a model with an output layer, or without one."""
        return cls(model.get_encoder(), model.get_decoder(), model.config)

    def forward(
        self, ids: Int[Tensor, "B T"], decisions: Int[Tensor, "B A1"], group: int = 1
    ) -> Float[Tensor, "B A1 D"]:
        """Features from which actions are taken, and of the final state.

        With `group` > 1 the rows of a group begin with the same prompt: if each has one reply, the prompt is
        encoded once.
        """
        turns = Turns.of(decisions.cpu().numpy())
        history, real = turns.histories(ids)  # [U, H]
        shared = group if len(turns.row) == len(ids) else 1
        # The lead of each group speaks for it: `histories` has the rows in their order.
        encoded = self.encode(history[::shared], real[::shared]).repeat_interleave(shared, 0)  # [U, H, D]
        read = turns.replies(ids, self.start)
        features = self.decoder(
            input_ids=read,
            attention_mask=torch.ones_like(read),  # some would take a word that is the pad token for padding
            encoder_hidden_states=encoded,
            encoder_attention_mask=real.long(),
            use_cache=False,
        ).last_hidden_state  # [U, L, D]
        turn, place = (torch.as_tensor(x, device=ids.device) for x in (turns.turn, turns.place))
        return features[turn, place]

    def encode(self, history: Int[Tensor, "U H"], real: Tensor) -> Float[Tensor, "U H D"]:
        """What the encoder makes of histories that are padded on the right."""
        window = getattr(self.encoder.config.get_text_config(), "sliding_window", None)
        if window is None or window >= history.shape[1] or bool(real.all()):
            return self.encoder(input_ids=history, attention_mask=real.long()).last_hidden_state
        # Padding further from the last word than a layer looks would attend to nothing at all, and a mean of
        # nothing is no number. Histories of one length have no padding.
        lengths = real.sum(1)
        parts, places = [], []
        for length in lengths.unique().tolist():
            at = (lengths == length).nonzero().squeeze(1)
            read = history[at, :length]
            found = self.encoder(input_ids=read, attention_mask=torch.ones_like(read)).last_hidden_state
            parts.append(nn.functional.pad(found, (0, 0, 0, history.shape[1] - length)))
            places.append(at)
        return torch.cat(parts)[torch.cat(places).argsort()]


def is_encoder_decoder(model: Any) -> bool:
    """Whether a model has an encoder beside what speaks."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def start_of(config: Any) -> int:
    """The id that a decoder reads before a reply. InputError if the model names none."""
    text = config.get_text_config()
    found = getattr(config, "decoder_start_token_id", None), getattr(text, "bos_token_id", None)
    start = next((x for x in found if x is not None), None)
    if start is None:
        raise InputError(
            f"a {config.model_type} model without decoder_start_token_id; expected the token that its "
            "decoder begins with, in config.json"
        )
    return int(start)


def settle_(model: Any) -> None:
    """Say in the model's config what its decoder begins with, and let what reads pictures learn nothing.

    `generate` looks for the token in its own settings first, and so do we. Text has no pictures: their
    weights would get no gradient, and several processes wait for the gradients of all.
    """
    named = getattr(getattr(model, "generation_config", None), "decoder_start_token_id", None)
    model.config.decoder_start_token_id = start_of(model.config) if named is None else named
    encoder = model.get_encoder()
    for name in ("vision_tower", "multi_modal_projector"):
        if hasattr(encoder, name):
            getattr(encoder, name).requires_grad_(False)


def context_of_encoder_decoder(config: Any) -> int:
    """The longest row that is read: history and reply together, so that rows of all models are alike."""
    text = config.get_text_config()
    named = (getattr(c, k, None) for c in (text, config) for k in ("max_position_embeddings", "n_positions"))
    return int(next((x for x in named if x is not None), CONTEXT))
