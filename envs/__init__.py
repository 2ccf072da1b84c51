"""What an episode is, and where it is played."""
