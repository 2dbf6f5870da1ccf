"""Import a foreign file as `promptyard import` does, and read what was written as `promptyard check` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import yaml

from gateway import config, config_yaml
from gateway.importers import writing
from gateway.routes import Config


@dataclass
class Imported:
    """The text of our file, its data, what our own reader makes of it, and what was listed as lost."""

    text: str
    data: dict[str, Any]
    config: Config
    told: list[str]

    @property
    def providers(self) -> dict[str, Any]:
        return dict(self.data["providers"])

    @property
    def routes(self) -> dict[str, Any]:
        return dict(self.data["routes"])

    def lost(self, key: str) -> str:
        """The one line listed for `key`."""
        [line] = [line for line in self.told if f" {key}: " in line]
        return line

    def model(self, route: str) -> dict[str, Any]:
        """The provider of a route's first deployment, with the model's name."""
        first = self.routes[route]["deployments"][0]
        return {**self.providers[first["provider"]], "model": first["model"]}


def imported(importer: ModuleType, text: str, folder: Path) -> Imported:
    """`text` taken through `importer`, written, and read back whole."""
    source, written = folder / "theirs.yaml", folder / "routes.yaml"
    source.write_text(dedent(text))
    plan = importer.read(config_yaml.read(source))
    ours = writing.text(plan, "Written by a test.")
    written.write_text(ours)
    understood = config.load(written, dict.fromkeys(plan.variables(), "https://from.the/environment"))
    return Imported(ours, yaml.safe_load(ours), understood, plan.told())
