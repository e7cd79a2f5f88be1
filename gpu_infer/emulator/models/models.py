"""Registered models, and the assets that say where their files are."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

__all__ = ["Asset", "Model", "Models", "matches"]


@dataclass(slots=True)
class Asset:
    """A name for uploaded files.

    Attributes:
        artifacts: ``{"prefix": ...}`` or ``{"id": ...}``, each ``origin/container/path``.
    """

    name: str
    artifacts: list[dict[str, Any]]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(slots=True)
class Model:
    """One version of a model, with the fields that were sent."""

    name: str
    version: int
    fields: dict[str, Any]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def id(self) -> str:
        """``name:version``."""
        return f"{self.name}:{self.version}"


class Models:
    """All models and assets of the workspace."""

    def __init__(self) -> None:
        self.assets: dict[str, Asset] = {}
        self._models: dict[str, Model] = {}
        self._versions: dict[str, int] = {}

    def add_asset(self, name: str, artifacts: list[dict[str, Any]]) -> Asset:
        """A new asset."""
        asset = Asset(name, artifacts)
        self.assets[asset.id] = asset
        return asset

    def next_version(self, name: str) -> int:
        """The version that :meth:`register` gives. Numbers of deleted versions are not used again."""
        return self._versions.get(name, 0) + 1

    def register(self, name: str, fields: dict[str, Any], *, version: int = 0) -> Model:
        """A new version of a model: the one that is named, else the next."""
        model = Model(name, version or self.next_version(name), fields)
        self._versions[name] = max(model.version, self._versions.get(name, 0))
        self._models[model.id] = model
        return model

    def find(self, model_id: str) -> Model | None:
        """The model of an id; of a bare name, its latest version."""
        if ":" in model_id:
            return self._models.get(model_id)
        versions = [model for model in self._models.values() if model.name == model_id]
        return max(versions, key=lambda model: model.version, default=None)

    def newest_first(self) -> list[Model]:
        """All of them."""
        return sorted(self._models.values(), key=lambda model: (model.created, model.version), reverse=True)

    def remove(self, model: Model) -> None:
        """Forget one; its files stay, as with Azure."""
        self._models.pop(model.id, None)

    def asset_of(self, model: Model) -> Asset | None:
        """Where a model's files are."""
        return self.assets.get(str(model.fields.get("url", "")).removeprefix("aml://asset/"))


def matches(wanted: str, existing: dict[str, Any]) -> bool:
    """Whether tags or properties meet a filter such as ``"stage=prod,owner"``."""
    for term in wanted.split(","):
        name, equals, value = term.partition("=")
        if name not in existing or (equals and existing[name] != value):
            return False
    return True
