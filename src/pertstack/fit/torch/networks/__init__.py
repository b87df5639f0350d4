"""The published networks, one file per family."""
