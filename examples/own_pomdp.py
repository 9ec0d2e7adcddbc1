"""A POMDP of one's own: a patient may be ill, a test costs and may err, a cure harms the healthy."""

import numpy as np

import turnwise as tw
from turnwise.exact.reference_policies import best_open_loop

states, actions, observations = (
    ["well", "ill", "gone"],
    ["test", "treat", "send home"],
    ["negative", "positive"],
)

transitions = np.zeros((3, 3, 3))  # [action, state, next state]
transitions[0] = np.eye(3)  # a test changes nothing
transitions[1:, :, 2] = 1.0  # after the other two the patient is gone

emissions = np.full((3, 3, 2), 0.5)  # [action, state reached, observation]; without a test, no news
emissions[0, 0] = [0.9, 0.1]  # a test of someone who is well is negative in 9 of 10 cases
emissions[0, 1] = [0.2, 0.8]  # and of someone who is ill positive in 8 of 10

rewards = [[-1, -1, 0], [-20, 10, 0], [5, -30, 0]]  # [action, state]

clinic = tw.POMDP.from_arrays(
    transitions,
    emissions,
    rewards,
    discount=0.99,
    start=[0.7, 0.3, 0.0],
    ends=[False, False, True],  # the episode ends on entering "gone"
    states=states,
    actions=actions,
    observations=observations,
)
best, blind = tw.solve(clinic, target_gap=1e-3), best_open_loop(clinic, gap=1e-3)
print(f"the best policy is worth {best.lower:.3f} to {best.upper:.3f}")
print(f"without tests no policy is worth more than {blind.upper:.3f}")
print(f"so looking is worth at least {best.lower - blind.upper:.3f}")
