"""Tables of results as text, CSV and HTML."""
