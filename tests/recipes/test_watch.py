"""Watching an agent: films and texts of what its environment renders, steps in words, steps by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

import turnwise as tw
from turnwise.cli import main

SMALL: dict[str, Any] = {"width": 8, "quiet": True}
LITTLE = tw.PPO(steps=64, lanes=2, rollout=16)


class Lamp(gymnasium.Env):
    """Six steps; its picture is as red as the step is late, its text names the step."""

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space, self.action_space = spaces.Discrete(7), spaces.Discrete(2)
        self.render_mode, self._picture = render_mode, np.zeros((8, 12, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return 0, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.time, 1.0, self.time == 6, False, {}

    def render(self) -> Any:
        if self.render_mode == "ansi":
            return f"step {self.time}\n"
        self._picture[..., 0] = 40 * self.time  # into the same array each time
        return self._picture


@pytest.fixture(scope="module")
def lamp() -> tw.Actor:
    return tw.fit(LITTLE, Lamp, **SMALL)


@pytest.fixture(scope="module")
def tiger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("watch") / "run"
    tw.fit(LITTLE, "tiger", out=out, **SMALL)
    return out


def test_a_film_has_a_picture_of_the_beginning_and_one_of_each_step(lamp: tw.Actor, tmp_path: Path) -> None:
    found = tw.watch(lamp, episodes=2, out=tmp_path / "new" / "lamp.gif")
    assert found.rendered == "rgb_array" and [e["length"] for e in found.episodes] == [6, 6]
    assert [int(f[0, 0, 0]) for f in found.frames] == 2 * [40 * t for t in range(7)]
    assert found.film is not None
    with Image.open(found.film) as film:
        reds, times = [], []
        for i in range(film.n_frames):
            film.seek(i)
            reds.append(film.convert("RGB").getpixel((3, 3)))
            times.append(film.info["duration"])
    assert reds == 2 * [(40 * t, 0, 0) for t in range(7)]
    assert times == [250] * 13 + [1250]  # 4 a second, as the environment says; the last one stands


def test_texts_are_kept_and_pictures_are_not_made_of_them(lamp: tw.Actor, tmp_path: Path) -> None:
    found = tw.watch(lamp, render="ansi", out=tmp_path / "x.gif")
    assert list(found.frames) == [f"step {t}\n" for t in range(7)] and found.film is None
    assert not (tmp_path / "x.gif").exists()
    with pytest.raises(tw.InputError, match="there is no picture"):
        found.save(tmp_path / "x.gif")


def test_episodes_are_those_of_the_same_seed(lamp: tw.Actor) -> None:
    one, other = (tw.watch(lamp, seed=4, render=render) for render in ("none", "ansi"))
    assert one.episodes == other.episodes and one.rendered is None


def test_what_cannot_be_watched_is_said(lamp: tw.Actor, tiger: Path) -> None:
    with pytest.raises(tw.SettingError, match=r"render is 'human'; expected one of rgb_array, ansi: .*Lamp "):
        tw.watch(lamp, render="human")
    with pytest.raises(tw.SettingError, match="render is 'ansi'; expected none: tiger renders nothing else"):
        tw.watch(tiger, render="ansi")
    with pytest.raises(tw.SettingError, match=r"out is 'film.mp4'; expected a file that ends in .gif"):
        tw.watch(lamp, out="film.mp4")
    with pytest.raises(tw.InputError, match="was made with the render_mode None; expected 'ansi', for"):
        tw.watch(lamp, lambda: Lamp(), render="ansi")


def test_an_environment_that_lacks_what_it_draws_with_is_shown_otherwise(tmp_path: Path, capsys: Any) -> None:
    """FrozenLake draws pictures with pygame, and says so only when it is asked for one."""
    run = tmp_path / "lake"
    tw.fit(LITTLE, "FrozenLake-v1", out=run, **SMALL)
    assert main(["watch", str(run), "--horizon", "3"]) == 0
    said = capsys.readouterr()
    try:
        import pygame  # type: ignore[import-not-found] # noqa: F401
    except ImportError:
        assert "does not render rgb_array, so it is shown in ansi" in said.err and "FFF" in said.out
        assert main(["watch", str(run), "--render", "rgb_array"]) == 2
        assert "does not render rgb_array: " in capsys.readouterr().err
    else:
        assert (run / "episodes.gif").is_file()


def test_steps_are_printed_in_words(tiger: Path, capsys: Any) -> None:
    assert main(["watch", str(tiger), "--horizon", "5", "--episodes", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("saw (nothing yet)") == 2 and text.count("belief tiger-left 0.50") >= 2
    assert text.count("truncated after 5 steps: return") == 2
    assert main(["watch", str(tiger), "--horizon", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["episodes"][0]["steps"]) == 5 and found["film"] is None


def test_a_walk_by_hand(tiger: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listen and hear the left: .85. What is no action or no observation changes nothing."""
    typed = "listen\ntiger-left\nfly\nlisten\ngrowl\n/state\nopen-left\n\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert main(["watch", str(tiger), "--by-hand", "--json"]) == 0
    said = capsys.readouterr()
    assert "belief  tiger-left 0.850, tiger-right 0.150" in said.err
    assert "no action is called 'fly'" in said.err and "no observation is called 'growl'" in said.err
    steps = json.loads(said.out)["steps"]
    assert [s["action"] for s in steps] == ["listen", "open-left"] and steps[0]["observation"] == "tiger-left"
    assert ("state   tiger-left" in said.err) == (steps[1]["reward"] == -100)


def test_by_hand_takes_a_problem_that_is_written_out(tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    tw.fit(LITTLE, "long-t-maze", out=run, horizon=12, **SMALL)
    assert main(["watch", str(run), "--by-hand"]) == 2
    assert "--env long-t-maze: expected a POMDP that is written out" in capsys.readouterr().err


def test_an_agent_of_an_environment_in_memory_is_measured_in_as_many_lanes_as_one_likes(
    lamp: tw.Actor,
) -> None:
    """It learnt in two lanes; the environment is made again for the five."""
    assert tw.evaluate(lamp, episodes=5, lanes=5, quiet=True).mean == 6.0
