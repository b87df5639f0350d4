"""Files of predictions, whatever wrote them: names first, then values a few rows at a time."""
