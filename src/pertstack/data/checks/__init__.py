"""What is checked when a data file comes in."""
