"""Reward models made of a run's own episodes: what they learn from, how good they are, and their reward by name."""
