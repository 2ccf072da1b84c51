"""What an episode is worth."""

from rewards.compose import capped, gated, min_form, shaped, weighted, whole
from rewards.hosted import grader
from rewards.judge import relative, rubric
from rewards.outcome import contains, exact, json_equal, numeric, state_equal
from rewards.process import (
    call_bonus,
    flagged,
    in_order,
    information_gain,
    no_repeats,
    policy_kept,
    progress,
    valid_calls,
)
from rewards.score import GroupReward, Reward, Score, reward
from rewards.spec import REWARDS, build

__all__ = [
    "REWARDS",
    "GroupReward",
    "Reward",
    "Score",
    "build",
    "call_bonus",
    "capped",
    "contains",
    "exact",
    "flagged",
    "gated",
    "grader",
    "in_order",
    "information_gain",
    "json_equal",
    "min_form",
    "no_repeats",
    "numeric",
    "policy_kept",
    "progress",
    "relative",
    "reward",
    "rubric",
    "shaped",
    "state_equal",
    "valid_calls",
    "weighted",
    "whole",
]
