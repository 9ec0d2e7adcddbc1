"""A dialogue task of one's own: a guest wants tea or coffee, and says which if somebody asks."""

import random

import turnwise as tw


class Cafe:
    """The right drink is worth 1, the wrong one -1, and a turn that serves nothing costs 0.1."""

    drinks = ("tea", "coffee")

    def __init__(self):
        self.guests = {}  # [what the guest wants, turns so far] in each lane: the hidden state

    def reset(self, lanes, seeds):  # a new guest in each lane; the seed decides what they want
        for lane, seed in zip(lanes, seeds, strict=True):
            self.guests[lane] = [random.Random(seed).choice(self.drinks), 0]
        return [(tw.Message("user", "Good morning!"),) for _ in lanes]

    def step(self, lanes, replies):  # what follows each reply
        return [self.answer(self.guests[lane], reply) for lane, reply in zip(lanes, replies, strict=True)]

    def answer(self, guest, reply):
        guest[1] += 1
        if served := [drink for drink in self.drinks if drink in reply]:
            return tw.Response((), 1.0 if served == [guest[0]] else -1.0, terminated=True)
        return tw.Response((tw.Message("user", f"I like {guest[0]}."),), -0.1, terminated=guest[1] == 4)

    def hidden(self, lane):  # for people who analyse; agents never see it
        return {"wants": self.guests[lane][0]}


if __name__ == "__main__":
    says = ["What would you like?", "Here is your tea.", "Here is your coffee."]
    logs = tw.record(Cafe(), lambda messages, rng: rng.choice(says), conversations=1500)
    clone = tw.fit(tw.BC(epochs=6), logs, out="runs/cafe", width=32, layers=2, context=96, max_new_tokens=16)
    agent = tw.fit(tw.TurnIQL(epochs=20), logs, policy=clone, out="runs/cafe-iql", max_new_tokens=16)
    for policy in (clone, agent):
        print(tw.evaluate(policy, Cafe(), episodes=300))
