"""How a language model learns: adapters kept, critics beside policies, the best of a run, memory."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers.modeling_outputs import BaseModelOutput

import turnwise as tw
from turnwise.data.batch import pack_tokens
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.learning.precision import CAME_IN, as_it_came
from turnwise.models.lm.learning.recompute import recompute_layers_
from turnwise.models.lm.learning.saved import saved_by
from turnwise.models.lm.lora import dropouts_of, with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.pretrained import load_lm, save_lm
from turnwise.models.lm.replies import actions_logp
from turnwise.recipes.catalogue import ALGORITHMS
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.training.learning import criterion_of, has_bfloat16, lower, settled
from turnwise.recipes.training.machine import busy
from turnwise.run.distributed import World
from turnwise.run.errors import InputError, OutOfMemory, SettingError, is_out_of_memory

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
FEW: dict[str, Any] = {"quiet": True, "estimate": False, "max_new_tokens": 4}


@pytest.fixture
def base(tmp_path: Path, tokenizers: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    tokenizer = tokenizers["own"]
    lm = llama(len(tokenizer), width=16, layers=2, heads=2, context=64, eos=tokenizer.eos_token_id, pad=1)
    save_lm(tmp_path / "base", lm, tokenizer)
    return tmp_path / "base"


def logs(n: int = 12) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    words = ["yes", "no", "well", "case", "tablet"]
    return [
        {
            "messages": [
                {"role": "user", "content": f"{rng.choice(words)} {i}"},
                {"role": "assistant", "content": str(rng.choice(words))},
            ],
            "outcome": float(rng.normal()),
        }
        for i in range(n)
    ]


def test_adapters_are_kept_beside_the_name_of_their_base(base: Path, tmp_path: Path) -> None:
    """`tw.load` and `peft` fold them into the base that they name, and find what acted in memory; other
    layers than those that were named have none."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = tmp_path / "run"
    made = tw.fit(
        tw.BC(epochs=5.0, batch_size=4),
        logs(),
        model=str(base),
        lora_rank=2,
        lora_alpha=6.0,
        lora_dropout=0.1,
        lora_targets=("q_proj", "down_proj"),
        adapters="kept",
        out=out,
        **FEW,
    )
    folder = out / "policy"
    assert not [*folder.glob("model*")] and (folder / "adapter_model.safetensors").is_file()
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base.resolve())
    assert (settings["r"], settings["lora_alpha"]) == (2, 6.0)
    assert sorted(settings["target_modules"]) == ["down_proj", "q_proj"]
    with torch.inference_mode():
        expected = made.agent.lm(input_ids=IDS).logits
        assert_close(tw.load(out).agent.lm(input_ids=IDS).logits, expected, rtol=1e-5, atol=1e-5)
        plain = AutoModelForCausalLM.from_pretrained(base)
        assert (plain(input_ids=IDS).logits - expected).abs().max() > 1e-3
        theirs = PeftModel.from_pretrained(plain, str(folder)).eval()
        assert_close(theirs(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [tw.ILQL(epochs=2.0, q_rank=3), tw.TurnIQL(epochs=2.0)])
def test_a_critic_of_adapters_is_saved_as_them(base: Path, tmp_path: Path, config: Any) -> None:
    """The file of the policy's weights is not there twice; what is loaded says what acted in memory; the
    policy is the clone to the bit."""
    out = tmp_path / "run"
    made = tw.fit(config, logs(), policy=str(base), lora_rank=2, out=out, heldout=0.0, **FEW)
    found = sorted(f.name for f in (out / "policy" / "critic").iterdir())
    assert found == ["adapter_config.json", "adapter_model.safetensors", "heads.safetensors"]
    again = tw.load(out).agent
    for name, x in tw.load(base).agent.lm.state_dict().items():
        assert torch.equal(again.lm.state_dict()[name], x)
    (row,) = made.agent.chat.encode(list(tw.read_logs(logs(1), quiet=True)))
    for name, x in made.agent.values(row).items():
        assert_close(again.values(row)[name], x, rtol=1e-5, atol=1e-6)


def test_precisions_are_two_settings(base: Path, tmp_path: Path) -> None:
    """Weights of the base in bfloat16, or products: adapters and heads are float32, and so is what is saved
    from a base that was."""
    if not has_bfloat16(torch.device("cpu")):
        pytest.skip("a processor without bfloat16")
    for settings in ({"dtype": "bfloat16"}, {"autocast": "bfloat16"}):
        made = tw.fit(
            tw.ILQL(epochs=1.0), logs(), policy=str(base), lora_rank=2, heldout=0.2, **settings, **FEW
        )
        assert {p.dtype for p in made.agent.critic.parameters()} == {torch.float32}  # type: ignore[union-attr]
        assert {p.dtype for p in made.agent.lm.parameters()} == {torch.float32}


@pytest.mark.parametrize("named", [True, False])
def test_a_policy_is_saved_in_the_precision_in_which_it_came(
    base: Path, tmp_path: Path, tokenizers: dict[str, Any], named: bool
) -> None:
    """A folder in bfloat16, whether its config says so or its file alone, learns in float32, goes on from a
    checkpoint to the bit, and is written in bfloat16: what was learnt, rounded once."""
    from transformers import AutoModelForCausalLM

    half = AutoModelForCausalLM.from_pretrained(base).to(torch.bfloat16)
    save_lm(tmp_path / "half", half, tokenizers["own"])
    if not named:
        file = tmp_path / "half" / "config.json"
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in settings.items() if "dtype" not in k}))
    given: dict[str, Any] = {"model": str(tmp_path / "half"), "heldout": 0.0, "lora_rank": 2, **FEW}
    whole = tw.fit(tw.BC(epochs=4.0, batch_size=4), logs(), **given)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        interrupted(out, **given)
    made = tw.fit(tw.BC(epochs=4.0, batch_size=4), logs(), out=out, resume=True, **given)
    ours, theirs = (x.agent.lm.state_dict() for x in (made, whole))
    assert {x.dtype for x in ours.values()} == {torch.float32}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    saved = AutoModelForCausalLM.from_pretrained(out / "policy", dtype="auto")
    assert saved.dtype is torch.bfloat16 and made.agent.lm.dtype is torch.float32
    for name, x in saved.state_dict().items():
        assert torch.equal(x, ours[name].to(torch.bfloat16))
    assert any(not torch.equal(x, x.to(torch.bfloat16).float()) for x in ours.values())


def interrupted(out: Path, **given: Any) -> None:
    """The same run, stopped by hand behind its second step's checkpoint."""
    steps = [0]

    def stop(module: Any, *_: Any) -> None:
        steps[0] += torch.is_grad_enabled() and type(module).__name__ == "LlamaModel"
        if steps[0] == 8:
            raise KeyboardInterrupt

    hook = torch.nn.modules.module.register_module_forward_pre_hook(stop)
    try:
        tw.fit(tw.BC(epochs=4.0, batch_size=4), logs(), out=out, checkpoint_every=2, **given)
    finally:
        hook.remove()


def test_numbers_too_large_for_the_precision_in_which_they_came_are_kept_wide(base: Path) -> None:
    """float16 ends at 65,504."""
    lm, _ = load_lm(str(base))
    assert as_it_came(lm) is lm
    setattr(lm, CAME_IN, torch.float16)
    assert as_it_came(lm).dtype is torch.float16
    with torch.no_grad():
        lm.model.norm.weight[0] = 1e5
    assert as_it_came(lm) is lm


@pytest.mark.parametrize("group", [1, 2])
def test_layers_that_are_formed_again_give_the_same_gradients(row: Any, group: int) -> None:
    """To 1e-10, and no cache is read with, which a second reading would change; the bytes kept are fewer."""
    torch.manual_seed(0)
    lm: Any = llama(23, width=8, layers=3, heads=2, context=64, eos=1, pad=0).double()
    batch = pack_tokens([row("7 3|1 2 9"), row("7 3|4 9")], gamma=1.0, dtype=torch.float64)
    wanted = torch.autograd.grad(actions_logp(lm, batch).sum(), [*lm.parameters()])
    before = saved_by(trunk_of(lm))
    recompute_layers_(trunk_of(lm))
    assert saved_by(trunk_of(lm)) == before
    assert before.of(100, recompute=True) < 0.6 * before.of(100, recompute=False)
    found = torch.autograd.grad(actions_logp(lm, batch, group=group).sum(), [*lm.parameters()])
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)


def test_what_is_dropped_is_dropped_again_when_layers_are_formed_again(row: Any) -> None:
    """Adapters that drop half of what they read, and attention that does: the same draws twice."""
    batch = pack_tokens([row("7 3|1 2 9"), row("7 3|4 9")], gamma=1.0, dtype=torch.float64)

    def gradients(again: bool, adapted: bool) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(0)
        lm: Any = llama(23, width=8, layers=3, heads=2, context=64, eos=1, pad=0)
        if adapted:
            lm = with_lora(lm, 2, dropout=0.5)
            for m in dropouts_of(lm):
                m.train()
            for name, p in lm.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(p)
        else:
            lm.config.attention_dropout = 0.5
            for layer in trunk_of(lm).layers:
                layer.self_attn.attention_dropout = 0.5
            lm.train()
        lm.double()
        if again:
            recompute_layers_(trunk_of(lm))
        torch.manual_seed(1)
        loss = actions_logp(lm, batch).sum()
        return torch.autograd.grad(loss, [p for p in lm.parameters() if p.requires_grad])

    for adapted in (True, False):
        plain = gradients(False, adapted)
        torch.manual_seed(2)
        for a, b in zip(gradients(True, adapted), plain, strict=True):
            assert_close(a, b, rtol=0, atol=1e-10)


def test_bytes_that_a_pass_keeps_are_counted() -> None:
    """Each linear layer more keeps what it was given, 5 numbers of 8 bytes a position, and no weights."""

    class Trunk(torch.nn.Module):
        def __init__(self, layers: int) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(9, 5)
            self.layers = torch.nn.ModuleList([torch.nn.Linear(5, 5) for _ in range(layers)])
            self.config = SimpleNamespace(num_hidden_layers=layers, hidden_size=5)
            self.config.get_text_config = lambda: self.config

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
            h = self.embed(input_ids)
            for layer in self.layers:
                h = layer(h)
            return BaseModelOutput(last_hidden_state=h)

    one, four = (saved_by(Trunk(n).double()) for n in (1, 4))
    assert four.per_position - one.per_position == 3 * 40
    assert (one.inputs, four.inputs) == (40, 160)
    assert four.of(10, recompute=False) == 10 * four.per_position
    assert four.of(10, recompute=True) == 10 * (160 + four.per_position / 4)


def test_the_best_of_a_run_is_what_it_comes_to(base: Path, tmp_path: Path) -> None:
    """With a rate that ruins the model, the least held-out loss is early: its weights are the policy's, and
    the run ends after three readings without a smaller one. It stays ended when it is resumed."""
    given: dict[str, Any] = {"model": str(base), "heldout": 0.3, "keep": "best", "patience": 3, **FEW}
    c = tw.BC(epochs=40.0, batch_size=4, optimizer=tw.AdamW(lr=0.5, schedule="constant"))
    out = tmp_path / "run"
    made = tw.fit(c, logs(20), out=out, heldout_every=1, log_every=100, **given)
    lines = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    losses = {x["step"]: x["heldout/loss"] for x in lines}
    best = min(losses, key=lambda k: losses[k])
    assert made.result["best"] == {"step": best, "heldout/loss": losses[best]}
    assert max(losses) == best + 3 < 100
    again = tw.fit(c, logs(20), out=out, heldout_every=1, log_every=100, resume=True, **given)
    assert again.result["best"] == made.result["best"]
    assert_close(again.agent.lm.state_dict(), made.agent.lm.state_dict())


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        (tw.BC(), {"keep": "best", "heldout": 0.0}, "keep is 'best'; expected last: no rows are held out"),
        (tw.BC(), {"lora_alpha": 2.0}, "lora_alpha is 2.0; expected a lora_rank above 0"),
        (tw.BC(), {"lora_rank": 2, "lora_targets": ("nope",)}, "lora_targets is 'nope'; expected names of"),
        (tw.ILQL(), {"patience": 2}, "patience is 2; expected nothing: no loss of ILQL"),
        (tw.BC(), {"micro_batch": 0}, "micro_batch is 0; expected 1 or more"),
        (tw.BC(), {"dtype": "float16"}, "dtype is 'float16'; expected float32 or bfloat16"),
    ],
)
def test_what_cannot_work_is_refused(base: Path, config: Any, settings: Any, words: str) -> None:
    start = {"policy": str(base)} if isinstance(config, tw.ILQL) else {"model": str(base)}
    with pytest.raises(SettingError, match=words.replace("(", r"\(")):
        tw.fit(config, logs(), **{**FEW, "heldout": 0.2, **start, **settings})


def test_adapters_of_another_base_are_refused(base: Path, tmp_path: Path, tokenizers: dict[str, Any]) -> None:
    out = tmp_path / "run"
    tw.fit(tw.BC(epochs=1.0), logs(), model=str(base), lora_rank=2, adapters="kept", out=out, **FEW)
    other = llama(len(tokenizers["own"]), width=32, layers=2, heads=2, context=64, eos=2, pad=1)
    save_lm(tmp_path / "other", other, tokenizers["own"])
    file = out / "policy" / "adapter_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(tmp_path / "other")})
    )
    with pytest.raises(InputError, match=r"adapter does not fit its base|differs|changed"):
        tw.load(out)


def test_no_memory_is_said_with_what_takes_less(base: Path, tmp_path: Path) -> None:
    """An allocation that fails in the third step: the checkpoint of the second is there, and a run with
    smaller parts goes on from it."""
    out, calls = tmp_path / "run", [0]

    def hungry(module: Any, *_: Any) -> None:
        calls[0] += torch.is_grad_enabled()
        if calls[0] == 3:
            torch.empty(1 << 60)

    torch.nn.modules.module.register_module_forward_pre_hook(
        lambda m, x: hungry(m) if type(m).__name__ == "LlamaModel" and m.training is not None else None
    )
    c = tw.BC(epochs=2.0, batch_size=4)
    try:
        with pytest.raises(OutOfMemory) as caught:
            tw.fit(c, logs(), model=str(base), out=out, checkpoint_every=100, **FEW)
    finally:
        torch.nn.modules.module._global_forward_pre_hooks.clear()
    said = str(caught.value)
    assert "out of memory; expected a smaller micro_batch" in said and "gradient_checkpointing" in said
    made = tw.fit(c, logs(), model=str(base), out=out, resume=True, micro_batch=1, **FEW)
    assert made.result["metrics"]["step"] >= 2
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError("shapes"))


def test_parts_are_as_large_as_activations_allow() -> None:
    """4 GiB of activations at a time unless a micro-batch is set; a plan counts what all of it takes."""
    lm = llama(23, width=64, layers=2, heads=2, context=4096, eos=1, pad=0)
    each = saved_by(trunk_of(lm)).per_position
    sizes: dict[str, Any] = {"rows": 10**6, "longest": 4000, "vocab": 23}
    how = settled(lm, [trunk_of(lm)], Learning(), World(), **sizes)
    assert how.rows * 4000 * each <= 4 * 2**30 < (how.rows + 1) * 4000 * each
    weights = sum(p.nbytes for p in lm.parameters())
    assert (how.memory.weights, how.memory.gradients, how.memory.optimizer) == (weights, weights, 2 * weights)
    few = settled(lm, [trunk_of(lm)], Learning(micro_batch=2), World(), **sizes)
    assert few.rows == 2 and few.memory.total < how.memory.total
    both = {"rows": 4, "longest": 100, "vocab": 23}
    once, twice = (
        settled(lm, [trunk_of(lm)], Learning(gradient_checkpointing=x), World(), **both).memory
        for x in (False, True)
    )
    # Formed again, layers keep less, and leave as many holes.
    assert once.activations == pytest.approx(400 * each, abs=1) and twice.activations < 0.6 * once.activations
    assert twice.allocator == once.allocator == pytest.approx(0.3 * 400 * each, abs=1)
    assert "micro_batch" in lower(Learning(), 4) and "micro_batch" not in lower(Learning(), 1)


def test_two_threads_on_a_busy_machine_are_warned_of() -> None:
    assert busy(2, load=0.2, cores=2) is None and busy(1, load=9.0, cores=2) is None
    assert "2 threads wait for each other" in str(busy(2, load=1.0, cores=2))


def test_losses_to_go_by() -> None:
    """Those of targets that move are none."""
    found = {
        name: criterion_of(ALGORITHMS[name]) for name in ("bc", "mc", "ilql", "turn-iql", "dpo", "reward")
    }
    assert found == {
        "bc": "loss",
        "mc": "loss",
        "ilql": None,
        "turn-iql": None,
        "dpo": "loss",
        "reward": "loss",
    }
