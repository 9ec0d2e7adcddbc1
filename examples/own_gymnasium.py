"""A Gymnasium environment of one's own: a lamp is shown once, and must be named three steps later."""

import gymnasium
from gymnasium import spaces

import turnwise as tw


class Lamp(gymnasium.Env):
    """0 or 1 is seen at the start, then 2; naming the lamp at the end is worth 1. Without memory: 0.5."""

    observation_space, action_space = spaces.Discrete(3), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.lamp, self.time = int(self.np_random.integers(2)), 0
        return self.lamp, {}

    def step(self, action):
        self.time += 1
        over = self.time == 3
        reward = float(over and action == self.lamp)
        return 2, reward, over, False, {}


for memory in ("none", "gru"):
    config = tw.PPO(steps=60_000, lanes=32, rollout=16)
    agent = tw.fit(config, Lamp, memory=memory, width=32, out=f"runs/lamp-{memory}")
    print(f"memory {memory}: {tw.evaluate(agent, Lamp, episodes=1000)}")

player = agent.player(greedy=True)  # acts in any loop
env = Lamp()
observation, _ = env.reset(seed=3)
reward, over = 0.0, False
while not over:
    observation, reward, over, _, _ = env.step(player.act(observation, reward))
print("one episode by hand: reward", reward)
