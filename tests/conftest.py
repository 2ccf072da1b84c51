"""Laws are tried on the same examples every time, and a busy machine does not make them fail."""

from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")
