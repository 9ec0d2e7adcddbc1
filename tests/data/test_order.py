"""The order of the data: every row once an epoch, the same from the same seed, alike lengths together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.data.order import BatchOrder, batch_size_for, chunks, scrambled
from turnwise.run.distributed import World
from turnwise.run.passes import Picked


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=70),
    st.integers(1, 9),
    st.integers(0, 2**31),
    st.integers(1, 4),
)
def test_every_row_once_an_epoch(lengths: list[int], batch_size: int, seed: int, pool: int) -> None:
    order = BatchOrder(lengths, batch_size, seed, pool)
    n = order.batches_per_epoch
    assert n == -(-len(lengths) // batch_size)
    for epoch in range(2):
        batches = [order.rows(step) for step in range(epoch * n, (epoch + 1) * n)]
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        assert max(len(b) for b in batches) <= batch_size
        assert sum(len(b) < batch_size for b in batches) <= 1


def test_the_order_is_a_function_of_seed_and_step() -> None:
    """Asked in any order, by a run that begins in the middle: the same rows; another seed, other rows."""
    lengths = np.random.default_rng(0).integers(1, 50, 200)
    order = BatchOrder(lengths, 16, seed=5)
    forwards = [order.rows(step).tolist() for step in range(40)]
    resumed = BatchOrder(lengths, 16, seed=5)
    assert [resumed.rows(step).tolist() for step in (39, 3, 20, 4)] == [forwards[s] for s in (39, 3, 20, 4)]
    assert [BatchOrder(lengths, 16, seed=6).rows(step).tolist() for step in range(40)] != forwards
    n = order.batches_per_epoch
    assert sorted(forwards[:n]) != sorted(forwards[n : 2 * n])


@pytest.mark.parametrize("n", [1, 2, 3, 100, 257, 4096])
def test_scrambled_places_are_a_permutation(n: int) -> None:
    """Each place once, whichever part is asked for; another seed gives another one, far from the first."""
    found = scrambled(np.arange(n), n, (3, 1))
    assert sorted(found.tolist()) == list(range(n))
    assert scrambled(np.arange(n)[n // 2 :], n, (3, 1)).tolist() == found[n // 2 :].tolist()
    if n >= 100:  # two random permutations agree in one place on average, whatever n is
        assert (scrambled(np.arange(n), n, (3, 2)) == found).sum() < 10 > (found == np.arange(n)).sum()


def test_more_rows_than_a_window_holds() -> None:
    """1,000 rows in windows of 128: every row once an epoch; a step alone says what it reads.

    A row of the first half is as likely in a window as one of the second: of 128, the share is off by .15 in
    one of 1,000 seeds.
    """
    lengths = np.random.default_rng(0).integers(1, 50, 1000)
    order = BatchOrder(lengths, 8, seed=5, pool=4, window=130)
    assert order.window == 128 and order.batches_per_epoch == 125
    for epoch in range(2):
        batches = [order.rows(step) for step in range(epoch * 125, (epoch + 1) * 125)]
        assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
        assert [len(b) for b in batches].count(8) == 125
    resumed = BatchOrder(lengths, 8, seed=5, pool=4, window=130)
    steps = (124, 3, 249, 16, 15)
    assert [resumed.rows(s).tolist() for s in steps] == [order.rows(s).tolist() for s in steps]
    first = np.concatenate([order.rows(step) for step in range(16)])
    assert 0.35 < (first < 500).mean() < 0.65
    assert np.mean([np.ptp(lengths[order.rows(step)]) for step in range(16)]) < 25, "alike lengths together"
    whole = BatchOrder(lengths, 8, seed=5, pool=4)
    assert [whole.rows(s).tolist() for s in range(9)] == [
        BatchOrder(lengths, 8, seed=5, pool=4, window=1000 + 24).rows(s).tolist() for s in range(9)
    ]


def test_each_process_makes_its_own_rows_alone() -> None:
    """Of ten rows in batches of four, three processes read each row once between them, and no other."""
    made = list[int]()

    class Rows:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, i: int) -> int:
            made.append(i)
            return i

    order = BatchOrder([1] * 10, 4, seed=0)
    for step in range(3):
        batch = order.rows(step).tolist()
        shares = [World(rank, 3).share(Picked(Rows(), order.rows(step))) for rank in range(2)]  # type: ignore
        assert shares == [batch[rank::3] for rank in range(2)]
    assert len(made) == sum(map(len, [order.rows(s)[r::3] for s in range(3) for r in range(2)]))


def test_batches_hold_alike_lengths() -> None:
    """512 rows of 1 to 512 tokens in batches of 16, one pool: each batch is 16 neighbours, so no padding of
    more than 15; the batches do not come sorted."""
    lengths = np.random.default_rng(1).permutation(np.arange(1, 513))
    order = BatchOrder(lengths, 16, seed=0, pool=32)
    batches = [lengths[order.rows(step)] for step in range(32)]
    assert all(np.ptp(b) == 15 for b in batches)
    firsts = [int(b.min()) for b in batches]
    assert firsts != sorted(firsts) and firsts != sorted(firsts, reverse=True)


def test_a_pool_of_one_batch_mixes_lengths() -> None:
    """The limit: without pooling a batch is a random sample, whose spread is near that of the whole."""
    order = BatchOrder(np.arange(512), 16, seed=0, pool=1)
    spreads = [np.ptp(order.rows(step)) for step in range(32)]
    assert np.mean(spreads) > 400  # (16 - 1) / (16 + 1) of 512 is 452


@pytest.mark.parametrize(("size", "expected"), [(2, ["ab", "cd", "e"]), (5, ["abcde"]), (9, ["abcde"])])
def test_chunks(size: int, expected: list[str]) -> None:
    assert list(chunks("abcde", size)) == expected


def test_few_conversations_get_small_batches_and_many_steps() -> None:
    """339 rows, 3 passes: even batches of 4 leave 255 steps (32: 33); 6,000 rows: 16 leave 1,125 (32: 564).

    The change to batches of 8 is where 1,000 steps of 8 rows are 3 passes: at 8,000 / 3 rows.
    """
    sizes = [batch_size_for(rows, 3.0) for rows in (1, 339, 2_666, 2_667, 6_000, 11_000, 1_000_000)]
    assert sizes == [4, 4, 4, 8, 16, 32, 32]
    assert BatchOrder([1] * 339, batch_size_for(339, 3.0), seed=0).steps(3.0) == 255
