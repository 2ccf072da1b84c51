"""Other people's environments and tools, played as ours."""
