"""The prediction store: layout, commits, reading, verification."""
