"""Work in shards in this process: who gets what, and that a shard's numbers are its own."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.workers import expect_one, workers_of
from turnwise.run.errors import SettingError
from turnwise.run.shards.here import Here, divided, shard_seed, spread


def test_divided_by_hand() -> None:
    """The longer ones first; no shard is empty."""
    assert divided(7, 3) == [range(0, 3), range(3, 5), range(5, 7)]
    assert divided(6, 3) == [range(0, 2), range(2, 4), range(4, 6)]
    assert divided(2, 5) == [range(0, 1), range(1, 2)]


@pytest.mark.parametrize(("n", "shards"), [(1, 1), (10, 3), (97, 16), (16, 97)])
def test_everything_is_in_one_shard(n: int, shards: int) -> None:
    parts = divided(n, shards)
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1 and len(parts) == min(n, shards)


def test_seeds_of_shards_differ() -> None:
    seeds = {shard_seed(seed, shard) for seed in range(20) for shard in range(50)}
    assert len(seeds) == 1000 and all(0 <= s < 2**63 for s in seeds)
    assert {shard_seed(2**63 - 1, 2**40)} != {shard_seed(2**63 - 1, 2**40 + 1)}


def test_spread_keeps_the_order_and_counts() -> None:
    heard: list[int] = []
    found = spread(Here(), lambda shared, part: [shared * i for i in part], 10, 7, 3, heard.append)
    assert found == [0, 10, 20, 30, 40, 50, 60]
    assert heard == [3, 5, 7]


def test_an_error_ends_the_work() -> None:
    done: list[int] = []

    def fails(shared: None, part: int) -> int:
        return 1 // (2 - part)

    with pytest.raises(ZeroDivisionError):
        Here().each(fails, None, [0, 1, 2, 3], done.append)
    assert done == [0, 1]


def test_settings() -> None:
    assert not RaySettings().divides and not RaySettings(shards=1).divides
    assert RaySettings(shards=3).count == 3 and RaySettings(ray="local").count == 16
    with workers_of(RaySettings()) as nobody:
        assert nobody is None
    with workers_of(RaySettings(shards=2)) as here:
        assert isinstance(here, Here)
    with pytest.raises(SettingError, match="shards is 0; expected 1 or more"):
        RaySettings(shards=0)
    with pytest.raises(SettingError, match="ray is ' '; expected auto, local or the address"):
        RaySettings(ray=" ")
    with pytest.raises(SettingError, match="ray_cpus is 4; expected 1 where Ray does nothing"):
        RaySettings(ray_cpus=4)
    with pytest.raises(SettingError, match="ray is 'auto'; expected none beside an engine"):
        expect_one(EngineSettings("http://127.0.0.1:1"), RaySettings("auto"))


def test_chances_of_shards_are_independent() -> None:
    """Means of 400 shards of 50 coins: their variance is .25 / 50 to within a fifth (4 standard errors)."""
    means = [np.random.default_rng(shard_seed(0, k)).integers(0, 2, 50).mean() for k in range(400)]
    assert np.var(means) == pytest.approx(0.005, rel=0.3)
