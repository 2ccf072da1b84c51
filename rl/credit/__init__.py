"""From the scores of a group to one advantage per turn: pure functions on plain lists, in a table.

    credit("return_to_go_loo", outcome=[1, 0], turns=[[0, 0], [0.5]], scale=False)  # [[0.5, 1.0], [-0.5]]

See `rl.credit.shapes` for what the lists hold, and docs/credit.md for which estimator to use when.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from envs.errors import InputError, unknown
from rl.credit.absorbing import return_to_go_loo
from rl.credit.gae import gae, gae_turn
from rl.credit.outcome import dr_grpo, grpo, reinforce_pp, rloo
from rl.credit.shapes import Advantages, Outcome, States, TurnRewards, refuse_not_finite, refuse_other_shape
from rl.credit.states import gigpo, grouped_td
from rl.credit.turns import mt_grpo, process_grpo, turn_return


def credit(
    name: str,
    outcome: Outcome,
    turns: TurnRewards | None = None,
    states: States | None = None,
    **options: Any,
) -> Advantages:
    """One advantage per turn by the named estimator.

    Args:
        name: a key of `CREDIT`.
        outcome: [G], None where there is no score.
        turns: [G][K_i] process rewards, None where a turn was not judged; the lengths say how many turns
            each episode had. Without it nothing was judged, and each episode has as many turns as `states`
            says, or one.
        states: [G][K_i] keys of what the policy stood before, for estimators that group by state.
        options: the estimator's own keywords, as its docstring gives them; `eps=0` for the bare formula.

    Returns:
        [G][K_i]; of `gae`, which works on tokens, [G][T_i].

    Raises:
        InputError: no such estimator, an option it does not have, something it needs and was not given,
            shapes that do not fit, or a number that is not finite.
    """
    if name not in CREDIT:
        raise InputError(f"credit.name: no estimator {name!r}; there are {', '.join(CREDIT)}")
    if turns is None:
        turns = [[None]] * len(outcome) if states is None else [[None] * len(row) for row in states]
    if len(outcome) != len(turns):
        raise InputError(f"credit: {len(outcome)} outcomes, {len(turns)} lists of turns")
    refuse_not_finite("the outcome, entry", [[value] for value in outcome])
    refuse_not_finite("the reward of turn", turns)
    if states is not None:
        refuse_other_shape("states", states, turns)
        if "states" in _parameters(name):
            options["states"] = states
    known = _parameters(name)
    for option in options:
        if option not in known:
            raise InputError(f"credit, with {name}: {unknown('option', option, known)}")
    if missing := needs(name) - options.keys():
        raise InputError(f"credit: {name} needs {' and '.join(sorted(missing))}; see its docstring for their shape")
    return CREDIT[name](outcome, turns, **options)


def needs(name: str) -> frozenset[str]:
    """What an estimator must be given beside scores: "states", "values", "turn_ids"."""
    return frozenset(key for key, p in _parameters(name).items() if p.default is p.empty)


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(CREDIT[name]).parameters.items())[2:])


CREDIT: dict[str, Callable[..., Advantages]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
    "process_grpo": process_grpo,
    "mt_grpo": mt_grpo,
    "gigpo": gigpo,
    "turn_return": turn_return,
    "return_to_go_loo": return_to_go_loo,
    "gae": gae,
    "gae_turn": gae_turn,
    "grouped_td": grouped_td,
}
"""Estimators by the name configs call them."""

WHITENED = {"reinforce_pp": "dr_grpo", "gae": "gae", "gae_turn": "gae_turn"}
"""Estimators that in training end with whitening over a batch of groups, and the one that does their part in each."""

GIVEN = frozenset({"states", "tokens", "values", "turn_ids"})
"""Options that are data, which a trainer gives and a config can't."""
