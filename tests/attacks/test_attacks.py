"""Every attack, on every tier that can run here: it comes to nothing, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attacks import files, kernel, network, persistence, prompts, resources, rewards  # noqa: F401  (they enter attacks)
from attacks.catalogue import ATTACKS, Attack
from attacks.ground import Ground, tiers

QUICK = {15, 21, 24, 28, 31, 44, 52, 63, 65, 79}
"""A handful for every day: one or two of each kind."""


def attacks() -> list[object]:
    return [
        pytest.param(attack, id=attack.name, marks=() if number in QUICK else (pytest.mark.slow,))
        for number, attack in sorted(ATTACKS.items())
    ]


def test_all_attacks_are_here() -> None:
    assert sorted(ATTACKS) == list(range(1, 99))


@pytest.mark.parametrize("attack", attacks())
@pytest.mark.parametrize("tier", tiers())
def test_an_attack_comes_to_nothing(tier: str, attack: Attack, ground: Callable[[str], Ground]) -> None:
    if attack.play is None:
        pytest.skip(attack.unexpressed)
    here = ground(tier)
    here.run(attack.play(here))
    here.check()
