"""Several samples of one task: what the chance is that one of them succeeds, or all of them."""

from __future__ import annotations

from math import comb


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k samples succeeds: unbiased, from c successes in n samples.

    1 - C(n-c, k) / C(n, k); n=5, c=3, k=2 gives 0.9. Source: Chen et al. (2021), arXiv 2107.03374.
    """
    _check(n, c, k)
    return 1 - comb(n - c, k) / comb(n, k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """pass^k, the chance that all of k samples succeed: unbiased, from c successes in n samples.

    C(c, k) / C(n, k); n=5, c=3, k=2 gives 0.3. Source: Yao et al. (2024), arXiv 2406.12045.
    """
    _check(n, c, k)
    return comb(c, k) / comb(n, k)


def _check(n: int, c: int, k: int) -> None:
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError(f"needs 1 <= k <= n and 0 <= c <= n, not n={n}, c={c}, k={k}")
