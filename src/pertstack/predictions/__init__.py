"""The prediction store: aligned by identity, committed whole or not at all."""
