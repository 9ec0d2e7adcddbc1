"""Runs whose words are sampled by servers: the same with any number of them, resumed, and measured."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import turnwise as tw
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import save_lm
from turnwise.run.errors import InputError, SettingError

PROMPTS = ["hello", "it works now, my friend", "there", "I dropped it", "why not", "no light", "a fuse"]
SMALL = {"seed": 1, "max_new_tokens": 5, "evaluation_replies": 2, "log_every": 1, "quiet": True}


def short(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
    """Worth more, the fewer words it has."""
    return [-float(len(str(c))) / 10 for c in completions]


@pytest.fixture
def begun(policy: LmPolicy, chat: Any, tmp_path: Path) -> Path:
    """The folder of the policy to begin with."""
    save_lm(tmp_path / "policy", policy.lm, chat.tokenizer)
    return tmp_path / "policy"


def fit(config: Any, begun: Path, out: Path, servers: Sequence[Any], **options: Any) -> Any:
    settings = {
        **SMALL,
        "engine": ",".join(s.url for s in servers),
        "engine_timeout": 5.0,
        "engine_wait": 5.0,
        **options,
    }
    return tw.fit(config, PROMPTS, policy=begun, reward=short, out=out, **settings)


def metrics(out: Path) -> list[dict[str, float]]:
    """What was logged, without what differs from clock to clock and with float32's rounding."""
    lines = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: round(v, 4) for k, v in line.items() if k != "seconds" and "error" not in k} for line in lines
    ]


def test_a_run_is_the_same_with_one_server_as_with_two_of_which_one_dies(
    begun: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    """And if it was interrupted and goes on. Its words are the policy's own to 1e-5 throughout."""
    config = tw.RLOO(steps=2, prompts_per_step=2, group=2)
    fit(config, begun, tmp_path / "one", [serve()])
    mortal, asked = serve(), iter(range(10**6))

    def die(body: Any) -> None:
        if next(asked) == 9:
            mortal.kill()
            threading.Timer(0.2, mortal.start).start()

    mortal.before = die
    fit(tw.RLOO(steps=1, prompts_per_step=2, group=2), begun, tmp_path / "two", [mortal, serve()])
    fit(config, begun, tmp_path / "two", [mortal, serve()], resume=True)
    expected = metrics(tmp_path / "one")
    assert next(asked) > 9 and metrics(tmp_path / "two")[-1]["reward"] == expected[-1]["reward"]
    results = [json.loads((tmp_path / x / "result.json").read_text()) for x in ("one", "two")]
    before, after = (results[0]["measured"][x]["reward"]["mean"] for x in ("before", "after"))
    assert after == pytest.approx(results[1]["measured"]["after"]["reward"]["mean"]) and after != before
    for line in _lines(tmp_path / "one"):
        assert line["engine/logp_error_mean"] <= line["engine/logp_error_max"] < 1e-5
    assert not (tmp_path / "one.engine").exists()


@pytest.mark.parametrize(("name", "kind"), [("GRPO", "sglang"), ("TokenPPO", "vllm")])
def test_adapters_learn_through_servers_and_are_measured_there(
    name: str, kind: str, begun: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    """Measured is the model that they were folded into, which the servers speak for with the adapters."""
    server = serve(kind=kind)
    config = getattr(tw, name)(steps=2, prompts_per_step=2, **({"group": 2} if name == "GRPO" else {}))
    made = fit(config, begun, tmp_path / "run", [server], lora_rank=2)
    assert server.said > 20 and server.adapters and "/collective_rpc" not in server.calls
    assert made.result["measured"]["after"]["replies"] == 2 * made.result["measured"]["held_out"]
    assert all(line["engine/logp_error_max"] < 1e-4 for line in _lines(tmp_path / "run"))


def _lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_policy_is_measured_through_servers(begun: Path, serve: Callable[..., Any]) -> None:
    results = [
        tw.evaluate(begun, "helpdesk", engine=urls, episodes=6, lanes=3, temperature=0.7, quiet=True).result
        for urls in (serve().url, f"{serve().url},{serve().url}")
    ]
    assert results[0]["mean"] == results[1]["mean"] and results[0]["sampled_by"] == "vLLM 0.32.0"
    with pytest.raises(InputError, match="another model"):
        other = serve(LmPolicy(serve().loaded(str(begun))).lm.apply(_doubled))
        tw.evaluate(begun, "helpdesk", engine=other.url, episodes=6, quiet=True)


def test_a_policy_is_exported_for_servers(begun: Path, tmp_path: Path, capsys: Any) -> None:
    """With an output layer of its own, which is the same function; `transformers` loads it."""
    from turnwise.cli import main
    from turnwise.models.lm.pretrained import load_lm

    assert main(["export", str(begun), str(tmp_path / "served"), "--json"]) in (0, None)
    tied, untied = load_lm(str(begun))[0], load_lm(str(tmp_path / "served"))[0]
    weights = [m.get_output_embeddings().weight is m.get_input_embeddings().weight for m in (tied, untied)]
    assert weights == [True, False]
    ids = torch.arange(5).unsqueeze(0)
    assert torch.equal(tied(ids).logits, untied(ids).logits)
    assert json.loads(capsys.readouterr().out)["file"] == str(tmp_path / "served")


def _doubled(module: Any) -> None:
    if hasattr(module, "weight"):
        module.weight.data *= 1.5


def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    begun: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    config = tw.RLOO(steps=2, prompts_per_step=2, group=2)
    with pytest.raises(SettingError, match="engine_wait is -1"):
        fit(config, begun, tmp_path / "run", [serve()], engine_wait=-1)
    with pytest.raises(TypeError, match="'engin'"):
        tw.fit(config, PROMPTS, policy=begun, reward=short, out=tmp_path / "run", engin="x", quiet=True)
    with pytest.raises(InputError, match="no server answers there"):
        tw.fit(
            config,
            PROMPTS,
            policy=begun,
            reward=short,
            out=tmp_path / "run",
            engine="a.invalid:1",
            quiet=True,
        )
    assert not (tmp_path / "run").exists() and not (tmp_path / "run.engine").exists()
