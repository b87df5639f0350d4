"""Means, intervals and tests with whole groups as the unit; no word about models, studies or files."""
