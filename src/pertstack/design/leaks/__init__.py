"""Checks that a fold plan keeps what is scored apart from what is fitted on."""
