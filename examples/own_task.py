"""A dialogue task of one's own: a guest wants tea or coffee, and says which if somebody asks."""

import numpy as np

from turnwise.envs.dialogue import Message, Reference, Response


class Cafe:
    """The right drink is worth 1, the wrong one -1, and every turn without a drink costs 0.1."""

    def __init__(self):
        self.wants = {}

    def reset(self, lanes, seeds):
        for lane, seed in zip(lanes, seeds, strict=True):
            self.wants[lane] = np.random.default_rng(seed).choice(["tea", "coffee"])
        return [(Message("user", "Good morning!"),) for _ in lanes]

    def step(self, lanes, replies):
        return [self.answer(self.wants[lane], reply) for lane, reply in zip(lanes, replies, strict=True)]

    def answer(self, wants, reply):
        if "tea" in reply or "coffee" in reply:
            return Response((), 1.0 if wants in reply else -1.0, terminated=True)
        return Response((Message("user", f"A {wants}, please."),), -0.1)

    def hidden(self, lane):
        return {"wants": self.wants[lane]}

    def references(self):  # optional: what is known of the task
        return [Reference("asks, then serves", "optimum", 0.9)]


if __name__ == "__main__":
    cafe = Cafe()
    print(cafe.reset([0], seeds=[7])[0][0].content)
    for reply in ("What would you like?", "Here is your tea."):
        print(reply, cafe.step([0], [reply])[0])
