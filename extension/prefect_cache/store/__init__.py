"""The store: entries on disk that are whole or not there.

Names that other rooms use come from here: ``from prefect_cache.store import Store``.
"""

from __future__ import annotations

from prefect_cache.store.entries import CacheWarning, Eviction, Store, Usage, default_root
from prefect_cache.store.publish import Draft
from prefect_cache.store.trust import Trust

__all__ = ["CacheWarning", "Draft", "Eviction", "Store", "Trust", "Usage", "default_root"]
