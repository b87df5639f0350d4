"""The leaderboard: its rows, its files, and how it shows as text, frame and picture."""
