"""Returns: what a decision turned out to be worth, as targets of values and weights of policy gradients.

Tensors are [B, A], one number for each decision; ValueError if their shapes differ. `discounts[k]` multiplies
the value of the state of decision k+1: it is 0 after a true end and never 0 after a cut, so no formula here
needs a `done`. `next_values[k]` is the value of the state that decision k led to, which is the final state's
for the last decision of a row. `mask` is True at real decisions: a function that takes it returns 0
elsewhere, whatever the padding holds.
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


def next_of(x: Shaped[Tensor, "B A"]) -> Shaped[Tensor, "B A"]:
    """x at the next decision: y_k = x_{k+1}, and 0 (or False) after the last one.

    The packer has shifted time already. What is left to shift is a quantity that belongs to decisions and is
    made from them, such as a return or a mask. Values of states need no shift: they are [B, A+1] and hold
    the final state, so `values[:, 1:]` are those that decisions led to.
    """
    return torch.nn.functional.pad(x[:, 1:], (0, 1))


def previous_of(x: Shaped[Tensor, "B A"]) -> Shaped[Tensor, "B A"]:
    """x at the previous decision: y_k = x_{k-1}, and 0 (or False) at the first one."""
    return torch.nn.functional.pad(x[:, :-1], (1, 0))


def _check_shapes(rewards: Tensor, **others: Tensor) -> None:
    # PyTorch would broadcast [1, A] or [A] against [B, A] without a word, and return numbers of no row.
    for name, x in others.items():
        if x.shape != rewards.shape:
            given, expected = list(x.shape), list(rewards.shape)
            raise ValueError(f"{name} has shape {given}; expected {expected}, as the rewards have")


def td_targets(
    rewards: Float[Tensor, "B A"], discounts: Float[Tensor, "B A"], next_values: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """The one-step target: the reward and the discounted value of where it leads.

        G_k = r_k + d_k v_{k+1}

    Sutton & Barto (2018), eq. 6.2, with a discount of each decision. Special cases, by what `next_values`
    are: V(s_{k+1}) for TD(0), Q(s_{k+1}, a_{k+1}) for Sarsa, max_a Q(s_{k+1}, a) for Q-learning, the mean of
    Q under the policy for expected Sarsa. There is no `mask`: at padding it is whatever its arguments
    make of it.
    """
    _check_shapes(rewards, discounts=discounts, next_values=next_values)
    return rewards + discounts * next_values


def discounted_returns(
    rewards: Float[Tensor, "B A"], discounts: Float[Tensor, "B A"], mask: Bool[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """The Monte Carlo return: all rewards to the end of the row, and no value.

        G_k = r_k + d_k r_{k+1} + d_k d_{k+1} r_{k+2} + ...
            = r_k + d_k G_{k+1}                                    G is 0 after the row's last decision

    Sutton & Barto (2018), eq. 3.9. If the row was cut, what would have come after it is lost: use
    `lambda_returns` with lambda 1 to let the final state's value stand in for it.
    """
    _check_shapes(rewards, discounts=discounts, mask=mask)
    returns = torch.zeros_like(rewards)
    after = torch.zeros_like(rewards[:, 0])  # [B]
    for k in range(rewards.shape[1] - 1, -1, -1):
        # The mask is needed although padding has reward 0 and discount 0: callers may rewrite both.
        after = (rewards[:, k] + discounts[:, k] * after).where(mask[:, k], 0.0)
        returns[:, k] = after
    return returns


def lambda_returns(
    rewards: Float[Tensor, "B A"],
    discounts: Float[Tensor, "B A"],
    next_values: Float[Tensor, "B A"],
    mask: Bool[Tensor, "B A"],
    lam: float | Float[Tensor, "B A"],
) -> Float[Tensor, "B A"]:
    """A mixture of bootstrapping after one step, after two, and so on.

    `lam` is one number, or one for each decision [B, A]: l_k is the weight of the return G_{k+1}, and
    1 - l_k that of the value v_{k+1}. The larger l_k, the further the return looks before it bootstraps.

        G_k = r_k + d_k (1 - l_k) v_{k+1}
                  + d_k l_k (r_{k+1} + d_{k+1} (1 - l_{k+1}) v_{k+2}
                                     + d_{k+1} l_{k+1} (r_{k+2} + ...))
            = r_k + d_k ((1 - l_k) v_{k+1} + l_k G_{k+1})

    At a row's last decision l_k counts as 0, so that the value of the final state stands in for what was cut
    (after a true end d_k is 0 and it counts for nothing). Sutton & Barto (2018), eq. 12.18.

    Special cases by lambda:

        0              the one-step target, `td_targets`
        1              Monte Carlo, with the final state's value if the row was cut
        a constant     TD(lambda); minus V it is GAE (Schulman et al. 2016, arXiv:1506.02438, eq. 16)
        min(1, rho_{k+1}), with rho = pi / pi_behaviour of the action that was taken
                       V-trace with rho-bar = c-bar = 1: the target of V is V_k + min(1, rho_k) (G_k - V_k)
                       (Espeholt et al. 2018, arXiv:1802.01561, eq. 1)
        the traces c_k of V-trace
                       V-trace with every rho_k = 1

    and, if values of actions are learnt, by what `next_values` are (s' and a' are those of decision k+1):

        Q(s', a')      Sarsa(lambda)
        max Q(s', .)   Peng's Q(lambda); Watkins's, if l_k is 0 whenever a' is not greedy
        mean of Q(s', .) over the actions other than a', weighted by pi, with l_k = pi(a' | s')
                       Tree Backup (Sutton & Barto 2018, eq. 7.16)

    Only lambda can correct for the policy that acted: on logs written by another policy, a constant lambda
    above 0 leans towards what that policy did. `mask` is True at decisions that have a target. An action
    whose next state nobody knows has none, and no trace runs through it: l_k is 0 if decision k+1 is masked.
    """
    _check_shapes(rewards, discounts=discounts, next_values=next_values, mask=mask)
    if isinstance(lam, Tensor):
        _check_shapes(rewards, lam=lam)
    lam = next_of(mask).to(rewards.dtype) * lam  # [B, A]
    returns = torch.zeros_like(rewards)
    after = next_values[:, -1]  # [B]; any finite number would do: lam is 0 in the last column
    for k in range(rewards.shape[1] - 1, -1, -1):
        mixed = torch.lerp(next_values[:, k], after, lam[:, k])
        after = (rewards[:, k] + discounts[:, k] * mixed).where(mask[:, k], 0.0)
        returns[:, k] = after
    return returns


def n_step_returns(
    rewards: Float[Tensor, "B A"],
    discounts: Float[Tensor, "B A"],
    next_values: Float[Tensor, "B A"],
    mask: Bool[Tensor, "B A"],
    n: int,
) -> Float[Tensor, "B A"]:
    """n rewards, and the value of where they lead.

        G_k = r_k + d_k r_{k+1} + ... + d_k ... d_{k+n-2} r_{k+n-1} + d_k ... d_{k+n-1} v_{k+n}

    Sutton & Barto (2018), eq. 7.1. If the row has fewer than n decisions left, all of them count and the
    value of the final state stands in. Special cases: n = 1 is `td_targets`; n of at least A is
    `lambda_returns` with lambda 1. ValueError if n is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected 1 or more")
    _check_shapes(rewards, discounts=discounts, next_values=next_values, mask=mask)
    goes_on = next_of(mask)  # [B, A], True if decision k+1 is of the row
    returns = td_targets(rewards, discounts, next_values)
    for _ in range(n - 1):  # returns of m steps at k+1, with one reward before them, are of m+1 steps at k
        returns = td_targets(rewards, discounts, torch.where(goes_on, next_of(returns), next_values))
    return returns.masked_fill(~mask, 0.0)
