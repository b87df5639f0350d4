"""The prediction store: aligned by identity, committed whole or not at all."""

from pertstack.predictions.array_source import ArraySource
from pertstack.predictions.record import Record
from pertstack.predictions.source import BlockSource
from pertstack.predictions.store import PredictionStore
from pertstack.predictions.store_source import StoreSource

__all__ = ["ArraySource", "BlockSource", "PredictionStore", "Record", "StoreSource"]
