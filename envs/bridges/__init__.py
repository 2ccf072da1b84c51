"""Environments whose tools other people's servers carry out."""
