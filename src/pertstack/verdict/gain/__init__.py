"""Where a gain comes from: its parts, in numbers and in words."""
