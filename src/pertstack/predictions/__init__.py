"""The prediction store: aligned by identity, committed whole or not at all."""

from pertstack.predictions.source import BlockSource
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.files.record import Record
from pertstack.predictions.store.store import PredictionStore

__all__ = ["ArraySource", "BlockSource", "PredictionStore", "Record", "StoreSource"]
