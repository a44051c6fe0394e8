"""Policies on disk: bundles that can be checked, and a store that remembers where each one comes from.

from saferule_core.store import Card, PolicyStore, bundle
"""

from saferule_core.store.card import BagOrigin, Card, Origin
from saferule_core.store.store import PolicyStore, StoreEntry

__all__ = ["BagOrigin", "Card", "Origin", "PolicyStore", "StoreEntry"]
