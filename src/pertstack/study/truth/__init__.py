"""The held-out truth: who opens it, how often, with which key."""
