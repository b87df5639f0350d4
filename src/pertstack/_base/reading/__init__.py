"""Files of strangers: text, tables, addresses; each read first where it can do no harm."""
