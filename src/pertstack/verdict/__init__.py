"""The held-out test, paired comparisons, gain decomposition, checks, leaderboard."""
