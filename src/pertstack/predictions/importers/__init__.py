"""Predictions made elsewhere: readers for their files, and the checks at the door."""

from pertstack.predictions.importers.add import add_predictions
from pertstack.predictions.importers.add_report import AddReport
from pertstack.predictions.importers.readers.files import NamedChunk, PredictionFile
from pertstack.predictions.importers.readers.opening import open_file, open_predictions

__all__ = ["AddReport", "NamedChunk", "PredictionFile", "add_predictions", "open_file", "open_predictions"]
