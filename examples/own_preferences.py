"""Preferences of one's own: pairs of replies in, a policy that gives the better one."""

import itertools
import random

import turnwise as tw

# Yours come from a file: tw.read_feedback("pairs.jsonl"). Here somebody prefers to hear yes.
rng = random.Random(0)
verbs, things = (
    ("Fix", "Paint", "Clean", "Check"),
    ("the door", "a window", "the lights", "this shelf", "our car"),
)
places = ("today", "tomorrow", "upstairs", "outside", "at home")
jobs = [f"{verb} {thing} {place}." for verb, thing, place in itertools.product(verbs, things, places)]
yes, no = "Gladly.", "Later."


def talk(job):  # how the policy speaks before anybody prefers anything
    said = [("user", job), ("assistant", rng.choice([yes, no]))]
    return {"messages": [{"role": role, "content": text} for role, text in said]}


small = {"width": 32, "layers": 2, "heads": 2, "context": 48}
logs = [talk(rng.choice(jobs)) for _ in range(1500)]
clone = tw.fit(tw.BC(epochs=6), logs, out="runs/jobs/clone", max_new_tokens=8, quiet=True, **small)

pairs = tw.read_feedback([{"prompt": job, "chosen": yes, "rejected": no} for job in jobs])
judge = tw.fit(tw.RewardModel(epochs=8), pairs, out="runs/jobs/judge", model="runs/jobs/clone")
policy = tw.fit(tw.DPO(epochs=12), pairs, policy=clone, out="runs/jobs/dpo", max_new_tokens=8)

print("accuracy on pairs held out:", judge.result["quality"].get("accuracy"))
print("worth of the two replies:", judge.score(jobs[0], [yes, no]))
for name, speaker in (("before", clone), ("after", policy)):
    print(name, [speaker.reply([{"role": "user", "content": jobs[0]}], seed=s) for s in range(5)])
