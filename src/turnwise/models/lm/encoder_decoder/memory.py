"""The memory of an encoder-decoder over many conversations at once.

Lanes that begin a reply together stay together: their histories are encoded in one pass, and their decoder's
keys and values are one cache, in which all have read equally many tokens. So no lane is padded to another's
length, positions are as the model counts them, and whatever attention its layers have is their own business.
A reply that ends leaves the others to go on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from turnwise.models.lm.encoder_decoder.trunk import EncoderDecoder


@dataclass
class _Together:
    """Lanes that began a reply at once: what was encoded for each, and their decoder's memory."""

    lanes: list[int]
    encoded: Tensor
    """[n, H, D]"""
    real: Tensor
    """[n, H], where it is no padding"""
    cache: EncoderDecoderCache

    def chosen(self, places: Sequence[int]) -> _Together:
        """Some of the lanes by themselves; what the others hold is not touched."""
        at = torch.as_tensor(places, device=self.real.device)
        cache = _copied(self.cache, at)
        return _Together([self.lanes[i] for i in places], self.encoded[at], self.real[at], cache)


class EncoderDecoderMemory:
    """What `lanes` conversations of up to `context` positions have read, for an encoder-decoder.

    The speaker of a lane loop tells it where replies begin: there the encoder reads everything that was said
    so far, once for all lanes that have the same history.
    """

    def __init__(self, trunk: EncoderDecoder, lanes: int, context: int):
        self.trunk, self.lanes, self.context = trunk, lanes, context
        weights = next(trunk.parameters())
        self.device, self.dtype = weights.device, weights.dtype
        self._heard: list[list[int]] = [[] for _ in range(lanes)]
        self._groups: list[_Together] = []

    def read(
        self,
        ids: Sequence[Sequence[int]],
        rows: np.ndarray,
        start: np.ndarray,
        begins: Sequence[bool] | None,
    ) -> Tensor:
        """Let lane `rows[i]` read `ids[i]` from position `start[i]` on; features of each last id [n, D].

        Where `begins`, a reply begins behind these ids; elsewhere they are what the lane itself has said.
        Without `begins` the lanes only listen, and there is nothing to speak from: zeros.
        """
        for lane, new, at in zip(rows.tolist(), ids, start.tolist(), strict=True):
            self._heard[lane] = self._heard[lane][:at] + [int(i) for i in new]
        width = self.trunk.config.get_text_config().hidden_size
        found = torch.zeros(len(ids), width, dtype=self.dtype, device=self.device)
        if begins is None:
            self._leave(rows.tolist())
            return found
        place = {lane: i for i, lane in enumerate(rows.tolist())}
        first = [lane for lane, yes in zip(rows.tolist(), begins, strict=True) if yes]
        self._leave(first)
        said = {lane: list(ids[i]) for lane, i in place.items() if not begins[i]}
        for lanes, features in [*self._go_on(said), *([(first, self._begin(first))] if first else [])]:
            found[[place[lane] for lane in lanes]] = features
        return found

    def copy_lane(self, source: int, lanes: list[int], length: int) -> None:
        """Let `lanes` have heard what `source` has, `length` ids; none of them is speaking."""
        self._leave(lanes)
        for lane in lanes:
            self._heard[lane] = self._heard[source][:length]

    def _begin(self, lanes: list[int]) -> Tensor:
        """Encode what each lane has heard, and read the token before a reply: [n, D]."""
        histories = [tuple(self._heard[lane]) for lane in lanes]
        different = list(dict.fromkeys(histories))  # [u]
        longest = max(map(len, different))
        padded = torch.tensor([[*h, *[0] * (longest - len(h))] for h in different], device=self.device)
        lengths = torch.tensor([len(h) for h in different], device=self.device)
        real = torch.arange(longest, device=self.device) < lengths.unsqueeze(1)  # [u, H]
        config = self.trunk.decoder.config
        cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache())
        group = _Together(list(range(len(different))), self.trunk.encode(padded, real), real, cache)
        start = torch.full((len(different), 1), self.trunk.start, device=self.device)
        features = self._decode(group, start)
        index = {h: i for i, h in enumerate(different)}
        at = [index[h] for h in histories]  # [n], the history of each lane
        whole = group.chosen(at)
        self._groups.append(_Together(list(lanes), whole.encoded, whole.real, whole.cache))
        return features[at]

    def _go_on(self, said: dict[int, list[int]]) -> list[tuple[list[int], Tensor]]:
        """(lanes, features [n, D]) of lanes that read their own words."""
        found, groups = [], list[_Together]()
        for group in self._groups:
            by_count: dict[int, list[int]] = {}
            for i, lane in enumerate(group.lanes):
                by_count.setdefault(len(said.get(lane, ())), []).append(i)
            # Those that say nothing now may go on later: they keep what they have.
            parts = {n: group if len(by_count) == 1 else group.chosen(i) for n, i in by_count.items()}
            groups += parts.values()
            for count, part in parts.items():
                if count:
                    read = torch.tensor([said[lane] for lane in part.lanes], device=self.device)
                    found.append((part.lanes, self._decode(part, read)))
        self._groups = groups
        return found

    def _decode(self, group: _Together, ids: Tensor) -> Tensor:
        return self.trunk.decoder(
            input_ids=ids,
            encoder_hidden_states=group.encoded,
            encoder_attention_mask=group.real.long(),
            past_key_values=group.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]

    def _leave(self, lanes: Sequence[int]) -> None:
        """Forget the replies of some lanes."""
        gone, groups = set(lanes), list[_Together]()
        for group in self._groups:
            stay = [i for i, lane in enumerate(group.lanes) if lane not in gone]
            if len(stay) == len(group.lanes):
                groups.append(group)
            elif stay:
                groups.append(group.chosen(stay))
        self._groups = groups


def _copied(cache: EncoderDecoderCache, at: Tensor) -> EncoderDecoderCache:
    """A cache of its own of the rows `at`."""
    own = copy.copy(cache)
    for name in ("self_attention_cache", "cross_attention_cache"):
        half = copy.copy(getattr(cache, name))
        half.layers = [copy.copy(layer) for layer in half.layers]
        for layer in half.layers:
            layer.batch_select_indices(at)
        setattr(own, name, half)
    own.is_updated = dict(cache.is_updated)
    return own
