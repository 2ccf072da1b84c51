"""Thin skins over the trainers of TRL."""
