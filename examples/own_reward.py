"""A reward function of one's own: the policy learns from its own replies, judged by a few lines of Python."""

import random

import turnwise as tw

rng = random.Random(0)
animals = ["cat", "dog", "owl", "fox", "hen", "cow", "pig", "bee"]


def kind_words(prompts, completions, animal, **columns):
    """In TRL's signature: 1 for naming the animal that was asked about, less a little for each word."""
    rewards = []
    for completion, name in zip(completions, animal, strict=True):
        words = completion.lower().replace(".", "").split()
        rewards.append(float(name in words) - 0.05 * len(words))
    return rewards


def talk(i):  # what the policy says before: some animal, whichever
    name = animals[i % 8]
    said = [("user", f"Name the {name}."), ("assistant", f"I see a {rng.choice(animals)} over there.")]
    return {"messages": [{"role": role, "content": text} for role, text in said]}


small = {"width": 48, "layers": 2, "heads": 2, "context": 48}
logs = [talk(i) for i in range(1600)]
clone = tw.fit(tw.BC(epochs=6), logs, out="runs/animals/clone", max_new_tokens=12, quiet=True, **small)

# Rows of prompts may have other columns: the reward function gets them.
prompts = tw.read_prompts([{"prompt": f"Name the {name}.", "animal": name} for name in animals])
config = tw.RLOO(steps=200, prompts_per_step=8, optimizer=tw.AdamW(lr=2e-3, warmup=0.05))
policy = tw.fit(config, prompts, policy=clone, reward=kind_words, out="runs/animals/rloo", max_new_tokens=12)
before, after = (policy.result["measured"][when]["reward"] for when in ("before", "after"))
print(f"mean reward {before['mean']:.2f} before, {after['mean']:.2f} after")
print(policy.reply([{"role": "user", "content": "Name the owl."}], seed=0))
