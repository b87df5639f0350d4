"""One pass over the predictions: gene moments, sample moments, top-gene slices, scores, diversity."""
