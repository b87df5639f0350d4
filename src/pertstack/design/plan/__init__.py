"""The fold plan: groups, their assignment to folds and test, its files."""
