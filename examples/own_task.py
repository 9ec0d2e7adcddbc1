"""A dialogue task of one's own: a guest wants tea or coffee, and says which if somebody asks."""

import random

from turnwise.envs.dialogue import Message, Response


class Cafe:
    """The right drink is worth 1, the wrong one -1, and a turn that serves nothing costs 0.1."""

    drinks = ("tea", "coffee")

    def __init__(self):
        self.wants = {}  # what the guest in each lane wants: the hidden state

    def reset(self, lanes, seeds):
        """A new guest in each lane; the seed decides what they want."""
        for lane, seed in zip(lanes, seeds, strict=True):
            self.wants[lane] = random.Random(seed).choice(self.drinks)
        return [(Message("user", "Good morning!"),) for _ in lanes]

    def step(self, lanes, replies):
        """What follows each reply."""
        return [self.answer(self.wants[lane], reply) for lane, reply in zip(lanes, replies, strict=True)]

    def answer(self, wanted, reply):
        """A reply that names a drink serves it; the guest answers any other one."""
        if served := [drink for drink in self.drinks if drink in reply]:
            return Response((), 1.0 if served == [wanted] else -1.0, terminated=True)
        return Response((Message("user", f"I would like {wanted}."),), -0.1)

    def hidden(self, lane):
        """For people who analyse; agents never see it."""
        return {"wants": self.wants[lane]}


if __name__ == "__main__":
    cafe = Cafe()
    cafe.reset([0], seeds=[7])
    print(cafe.step([0], ["What would you like?"]), cafe.step([0], ["Here is your tea."]))
