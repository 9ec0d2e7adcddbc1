"""Logs of one's own: conversations with outcomes in, a better policy out, and how it would reply."""

import random

import turnwise as tw

# Yours come from a file: tw.read_logs("logs.jsonl"). These are a shop whose agent offers one of two things.
rng = random.Random(0)
wishes = {"I run every morning.": "shoes", "I read every night.": "a lamp"}


def conversation():
    wish, offer = rng.choice(list(wishes)), rng.choice(list(wishes.values()))
    sold = offer == wishes[wish] and rng.random() < 0.8
    return {
        "messages": [
            {"role": "user", "content": f"Hello, {rng.randrange(1000)} speaking. {wish}"},
            {"role": "assistant", "content": f"May I offer you {offer}?"},
            {"role": "user", "content": "I take it." if sold else "No, thank you."},
        ],
        "outcome": 1.0 if sold else 0.0,
    }


logs = tw.read_logs([conversation() for _ in range(2000)])
print(logs)

small = {"width": 32, "layers": 2, "heads": 2, "context": 64}
clone = tw.fit(tw.BC(epochs=4), logs, out="runs/shop/bc", max_new_tokens=16, **small)
agent = tw.fit(tw.MC(epochs=4), logs, policy=clone, out="runs/shop/mc", max_new_tokens=16)

for name, policy in (("logs, imitated", clone), ("improved", agent)):
    for wish in wishes:
        talk = [{"role": "user", "content": f"Hello, 7 speaking. {wish}"}]
        print(f"{name}: {wish} ->", policy.reply(talk, seed=1))
print("what it thinks of logged conversations, word by word:", agent.result["report"])
