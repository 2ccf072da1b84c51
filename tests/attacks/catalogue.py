"""The list that attacks are entered in, each with its number and what its code tries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from attacks.ground import Ground

Play = Callable[[Ground], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    number: int
    name: str
    play: Play | None
    """Carries the attack out and asserts that it came to nothing."""
    unexpressed: str = ""
    """Why there is nothing to carry out."""


ATTACKS: dict[int, Attack] = {}


def attack(number: int) -> Callable[[Play], Play]:
    """Enter a function under its number; its name is the attack's."""

    def enter(play: Play) -> Play:
        assert number not in ATTACKS, f"attack {number} is there twice"
        ATTACKS[number] = Attack(number=number, name=play.__name__, play=play)
        return play

    return enter


def unexpressed(number: int, name: str, reason: str) -> None:
    assert number not in ATTACKS
    ATTACKS[number] = Attack(number=number, name=name, play=None, unexpressed=reason)
