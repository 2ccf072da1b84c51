"""What is done to the advantages of a whole batch: whitening, and the same size of step for every arm.

Both need a few sums over sampled tokens; `Spread` holds them, and those of several processes add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rl.credit.shapes import EPS, Advantages


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How the advantages of sampled tokens are spread, in sums that can be added."""

    tokens: int = 0
    total: float = 0.0
    squares: float = 0.0
    moved: int = 0
    """Tokens whose advantage is not 0."""

    def __add__(self, other: Spread) -> Spread:
        return Spread(
            tokens=self.tokens + other.tokens,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            moved=self.moved + other.moved,
        )

    @property
    def mean(self) -> float:
        return self.total / self.tokens if self.tokens else 0.0

    @property
    def rms(self) -> float:
        """Root of the mean square: the size of a step, other things being equal."""
        return math.sqrt(self.squares / self.tokens) if self.tokens else 0.0

    @property
    def share(self) -> float:
        """Tokens with credit among all sampled tokens."""
        return self.moved / self.tokens if self.tokens else 0.0

    def std(self, ddof: int) -> float:
        """Standard deviation over tokens; 0 of fewer than ddof + 1."""
        if self.tokens <= ddof:
            return 0.0
        squares = self.squares - self.total * self.mean
        return math.sqrt(max(squares, 0.0) / (self.tokens - ddof))


def spread_of(advantages: Sequence[Sequence[float]], tokens: Sequence[Sequence[int]]) -> Spread:
    """The spread of advantages ([N][K_i]) that hold for so many tokens each ([N][K_i])."""
    pairs = [(a, n) for row, counts in zip(advantages, tokens, strict=True) for a, n in zip(row, counts, strict=True)]
    return Spread(
        tokens=sum(n for _, n in pairs),
        total=math.fsum(n * a for a, n in pairs),
        squares=math.fsum(n * a * a for a, n in pairs),
        moved=sum(n for a, n in pairs if a),
    )


def whitened(advantages: Sequence[Sequence[float]], over: Spread, *, ddof: int = 0, eps: float = EPS) -> Advantages:
    """(A - mean) / (std + eps) with the mean and the std of a batch; 0 where the batch has no spread and no eps."""
    divisor = over.std(ddof) + eps
    return [[(a - over.mean) / divisor if divisor else 0.0 for a in row] for row in advantages]


def rescaled(advantages: Sequence[Sequence[float]], over: Spread, *, rms: float = 1.0) -> Advantages:
    """A * rms / (rms of the batch): signs, zeros and proportions stay, only the size of the step is set.

    Arms of an ablation that differ in this differ in their step size before they differ in anything else.

    Example: advantages 3 and -1 on one token each have rms 2.23607; rescaled to 1 they are 1.34164 and -0.44721.
    """
    scale = rms / over.rms if over.rms else 0.0
    return [[a * scale for a in row] for row in advantages]
