"""The numbered checks of a verdict."""
