"""Somebody else's program as a base model: its card, its environment, the folder through which it is spoken to."""
