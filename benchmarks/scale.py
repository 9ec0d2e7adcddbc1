"""Sizes and costs of language models on 1, 8 and 64 GPUs, by arithmetic alone: the tables of docs/scale.md.

    python benchmarks/scale.py

Nothing here is measured. Every number follows from the shape of a model, from the data sheet of a GPU and
from two shares of it that are assumed to be reached; all of them stand at the head.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A decoder of Llama's kind."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    tied: bool

    @property
    def kv(self) -> int:
        """Features of the keys (and of the values) of a position in a layer."""
        return self.width // self.heads * self.kv_heads

    @property
    def layer(self) -> int:
        """Weights of a layer: queries and output, keys and values, three of the MLP, two norms."""
        return self.width * (2 * self.width + 2 * self.kv + 3 * self.mlp + 2)

    @property
    def weights(self) -> int:
        """All of them, the embedding once if it is the output layer too."""
        return self.layers * self.layer + self.width + self.vocab * self.width * (1 if self.tied else 2)

    @property
    def multiplied(self) -> int:
        """Weights that a token is multiplied with: all but the embedding that it is looked up in."""
        return self.layers * self.layer + self.vocab * self.width

    def adapters(self, rank: int) -> int:
        """Weights of LoRA on every product of a layer."""
        ins_and_outs = 2 * 2 * self.width + 2 * (self.width + self.kv) + 3 * (self.width + self.mlp)
        return self.layers * rank * ins_and_outs


@dataclass(frozen=True)
class Gpu:
    """What a data sheet says of one."""

    name: str
    flops: float
    """products in bfloat16, a second"""
    memory: float
    """bytes"""
    bandwidth: float
    """bytes a second from its own memory"""
    inside: float
    """bytes a second to the others of its machine, each way"""
    outside: float
    """bytes a second to other machines, each way"""


MODELS = (
    Shape("135M", 30, 576, 9, 3, 1536, 49_152, True),  # SmolLM2-135M
    Shape("1B", 16, 2048, 32, 8, 8192, 128_256, True),  # Llama 3.2 1B
    Shape("8B", 32, 4096, 32, 8, 14_336, 128_256, False),  # Llama 3.1 8B
    Shape("70B", 80, 8192, 64, 8, 28_672, 128_256, False),  # Llama 3.1 70B
)
H100 = Gpu("H100 SXM", 989e12, 80e9, 3.35e12, 450e9, 50e9)
REACHED = 0.35
"""share of the products that training reaches, assumed"""
READ = 0.6
"""share of the bandwidth that decoding reaches, assumed"""
USABLE = 0.9
"""share of the memory that is there for what is counted"""
MACHINE = 8
"""GPUs of one machine"""
LENGTH = 1024
"""positions of a row"""
RANK = 8
"""of adapters"""
PAIRS = 64
"""pairs of a step of DPO: two rows each, and the reference's log-probabilities read once before"""
REPLIES, REPLY = 512, 512
"""replies of a step of RLOO, and tokens of each, behind a prompt of as many"""

FULL, HALF, LORA = "float32", "bfloat16", "LoRA on bfloat16"
BYTES = {FULL: 16.0, HALF: 8.0, LORA: 2.0}
"""of a weight that learns, with its gradient and two moments of Adam; or of one that lies below adapters"""


def forward(m: Shape, length: int) -> float:
    """Operations of one token of a row, on average: 2 a weight, and attention over half of the row.

    Queries times keys and probabilities times values are 2 operations each, a feature and a position.
    """
    return 2 * m.multiplied + 4 * m.layers * m.width * length / 2


def training(m: Shape, length: int, way: str) -> float:
    """Operations of one token: 6 a weight, or 4 where adapters learn and weights need no gradient."""
    return forward(m, length) * (2 if way == LORA else 3)


def state(m: Shape, way: str) -> float:
    """Bytes of weights, gradients and moments."""
    return m.weights * BYTES[way] + (m.adapters(RANK) * BYTES[FULL] if way == LORA else 0.0)


def kept(m: Shape, size: int) -> float:
    """Bytes of a position that a layer keeps for its backward, `size` bytes a number.

    Two norms (what comes in and what goes out of each), queries, keys and values before and behind the
    rotation, the attention's output, and four tensors as wide as the MLP.
    """
    return size * (8 * m.width + 4 * m.kv + 4 * m.mlp)


def activations(m: Shape, positions: int, size: int = 2, *, recompute: bool = True) -> float:
    """Bytes that a pass keeps: all, or what goes into each layer and all of one layer."""
    all_of_one = kept(m, size)
    each = m.layers * m.width * size + all_of_one if recompute else m.layers * all_of_one
    return positions * each


def cache(m: Shape, size: int = 2) -> int:
    """Bytes of the keys and values of one position of a lane."""
    return 2 * m.layers * m.kv * size


def fits(m: Shape, way: str, gpus: int, gpu: Gpu = H100) -> bool:
    """Whether state, split over the GPUs, and one row's activations on each have room."""
    return state(m, way) / gpus + activations(m, LENGTH) <= USABLE * gpu.memory


def least(m: Shape, way: str) -> int | None:
    """The fewest GPUs, of powers of two up to 64, that have room."""
    return next((n for n in (1, 2, 4, 8, 16, 32, 64) if fits(m, way, n)), None)


def line(gpus: int, gpu: Gpu = H100) -> float:
    """Bytes a second that exchanges of so many go at: the slowest of them counts."""
    return gpu.inside if gpus <= MACHINE else gpu.outside


def ddp_seconds(m: Shape, way: str, gpus: int) -> float:
    """A step's sum of gradients around the ring: 2 (n-1)/n of them pass each GPU."""
    if gpus == 1:
        return 0.0
    learnt = m.adapters(RANK) * 4 if way == LORA else m.weights * (4 if way == FULL else 2)
    return 2 * (gpus - 1) / gpus * learnt / line(gpus)


def fsdp_seconds(m: Shape, way: str, gpus: int) -> float:
    """Weights are collected forward and backward, gradients scattered: 3 (n-1)/n of their bytes."""
    if gpus == 1:
        return 0.0
    size = 4 if way == FULL else 2
    times = 2 if way == LORA else 3  # adapters' gradients are few
    return times * (gpus - 1) / gpus * m.weights * size / line(gpus)


def learning_seconds(m: Shape, way: str, tokens: float, gpus: int, beside: int = 0) -> float:
    """Learning from so many tokens: the forward is taken again for recomputation, and `beside` more times."""
    operations = training(m, LENGTH, way) + (1 + beside) * forward(m, LENGTH)
    return tokens * operations / (gpus * H100.flops * REACHED)


def lanes(m: Shape, gpus: int, length: int = LENGTH) -> int:
    """Lanes of so many positions whose caches fit beside the weights, all split over the GPUs."""
    return max(0, int((USABLE * gpus * H100.memory - 2 * m.weights) / (cache(m) * length)))


def decoding(m: Shape, lanes: int, gpus: int, length: int = LENGTH) -> float:
    """Tokens a second of one engine: a step reads all weights once and half of each lane's full cache.

    Or as many as the products allow, if that is less.
    """
    read = (2 * m.weights + lanes * cache(m) * length / 2) / (gpus * H100.bandwidth * READ)
    products = lanes * forward(m, length) / (gpus * H100.flops * REACHED)
    return lanes / max(read, products)


def engine_gpus(m: Shape) -> int:
    """GPUs of one engine: as many as leave half of their memory to caches, of powers of two."""
    return 2 ** math.ceil(max(0.0, math.log2(2 * m.weights / (USABLE * H100.memory / 2))))


def sizes() -> list[list[str]]:
    """A row for each model: weights, state by way, cache, features."""
    rows = [["model", "weights", "float32, all learn", "bfloat16, all learn", "LoRA on bfloat16",
             "adapters, rank 8", "cache of a token", "features of a million tokens",
             "reading them, seconds"]]  # fmt: skip
    for m in MODELS:
        rows.append(
            [m.name, f"{m.weights / 1e9:.3g} G", *(gb(state(m, way)) for way in BYTES),
             f"{m.adapters(RANK) / 1e6:.3g} M", f"{cache(m) / 1e3:.0f} kB", gb(1e6 * m.width * 4),
             seconds(reading_seconds(m))]
        )  # fmt: skip
    return rows


def places() -> list[list[str]]:
    """A row for each model: how many GPUs each way takes at least, and how the model is split."""
    rows = [["model", *BYTES, "an engine"]]
    for m in MODELS:
        found = [least(m, way) for way in BYTES]
        rows.append([m.name, *("more than 64" if n is None else str(n) for n in found), str(engine_gpus(m))])
    return rows


def reading_seconds(m: Shape, tokens: float = 1e6) -> float:
    """Reading so many tokens once, by one GPU: for features of a frozen trunk."""
    return tokens * forward(m, LENGTH) / (H100.flops * REACHED)


def dpo() -> list[list[str]]:
    """A row for each model and number of GPUs: seconds of a step of DPO."""
    rows = [["model", "GPUs", "way", "products", "exchange", "pairs a second, exchange not hidden"]]
    for m in MODELS:
        for gpus in (1, 8, 64):
            way = next((w for w in (FULL, LORA) if fits(m, w, gpus)), None)
            if way is None:
                rows.append([m.name, str(gpus), "no room", "-", "-", "-"])
                continue
            split = not fits(m, way, 1)
            exchange = (fsdp_seconds if split else ddp_seconds)(m, way, gpus)
            products = learning_seconds(m, way, 2 * PAIRS * LENGTH, gpus)
            how = way + ("" if gpus == 1 else ", fully_shard" if split else ", DDP")
            pace = f"{PAIRS / (products + exchange):,.3g}"
            rows.append([m.name, str(gpus), how, seconds(products), seconds(exchange), pace])
    return rows


def rloo() -> list[list[str]]:
    """Seconds of a step of RLOO, for each model and number of GPUs: one learns, engines have the others.

    One GPU alone does both by turns.
    """
    rows = [["model", "GPUs", "way", "lanes of an engine", "sampling", "learning on one GPU", "a step"]]
    for m in MODELS:
        way = next((w for w in (FULL, LORA) if fits(m, w, 1)), None)
        for gpus in (1, 8, 64):
            spoken = sampling_seconds(m, max(1, gpus - 1))
            if way is None or spoken is None or (gpus == 1 and not both_fit(m, way)):
                rows.append([m.name, str(gpus), "no room", *["-"] * 4])
                continue
            learning = learning_seconds(m, way, REPLIES * 2 * REPLY, 1, beside=1)
            at_once = f"{min(REPLIES, lanes(m, engine_gpus(m))):,}"
            rows.append(
                [
                    m.name,
                    str(gpus),
                    way,
                    at_once,
                    seconds(spoken),
                    seconds(learning),
                    seconds(spoken + learning),
                ]
            )
    return rows


def both_fit(m: Shape, way: str) -> bool:
    """Whether one GPU has room to learn and for an engine with 64 lanes beside."""
    engine = 2 * m.weights + 64 * LENGTH * cache(m)
    return state(m, way) + activations(m, LENGTH) + engine <= USABLE * H100.memory


def sampling_seconds(m: Shape, gpus: int) -> float | None:
    """A step's replies, by as many engines as there is room for; None if there is none."""
    each = engine_gpus(m)
    if each > gpus:
        return None
    own = -(-REPLIES // (gpus // each))
    at_once = min(own, lanes(m, each))
    return own * REPLY / decoding(m, at_once, each)


def gb(n: float) -> str:
    """Bytes for people, in GB of 10^9."""
    return f"{n / 1e9:,.0f} GB" if n >= 1e10 else f"{n / 1e9:.2g} GB"


def seconds(x: float) -> str:
    """Seconds for people."""
    return "0" if x == 0 else f"{x:.2g}" if x < 100 else f"{x:,.0f}"


def markdown(rows: list[list[str]]) -> str:
    """A table."""
    head, *rest = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rest])


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    for table in (sizes(), places(), dpo(), rloo()):
        print(markdown(table), end="\n\n")


if __name__ == "__main__":
    main()
