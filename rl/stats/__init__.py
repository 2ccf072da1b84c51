"""How sure a number is, and whether two differ. Pure functions, plain Python.

What was drawn is what an interval is about: tasks, where one policy is measured; training seeds, where
recipes are compared. The tasks of one run are not independent replicates of its recipe.
"""

from rl.stats.counts import pass_at_k, pass_hat_k
from rl.stats.intervals import Estimate, bootstrap, iqm, proportion, quantile, wilson
from rl.stats.paired import Paired, compare, fewest_seeds, holm, sign_flip, typical_interval
from rl.stats.power import detectable_effect, seeds_needed, tasks_needed
from rl.stats.runs import probability_of_improvement, stratified_bootstrap

__all__ = [
    "Estimate",
    "Paired",
    "bootstrap",
    "compare",
    "detectable_effect",
    "fewest_seeds",
    "holm",
    "iqm",
    "pass_at_k",
    "pass_hat_k",
    "probability_of_improvement",
    "proportion",
    "quantile",
    "seeds_needed",
    "sign_flip",
    "stratified_bootstrap",
    "tasks_needed",
    "typical_interval",
    "wilson",
]
