"""What a deployment's tokens cost: litellm's shipped price table, and `config/prices.yaml` over it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
from pydantic import Field, ValidationError

from gateway import config_yaml, strict
from gateway.config_yaml import Document
from gateway.errors import ConfigError
from gateway.money import EXACT, FREE, Listing, Price, Rates
from gateway.providers import rows
from gateway.routes import Config, Deployment, ProviderSpec

_MILLION = Decimal(10**6)
_ABOVE = re.compile(r"(.+)_above_(\d+)k_tokens")
_log = logging.getLogger(__name__)


class _ListingModel(strict.Strict):
    """One model's price, in USD per million tokens."""

    input: Decimal = Field(ge=0, le=10**6, strict=False, description="Tokens in", examples=["0.15"])
    output: Decimal = Field(ge=0, le=10**6, strict=False, description="Tokens out", examples=["0.60"])
    cached_input: Decimal | None = Field(
        None, ge=0, le=10**6, strict=False, description="Tokens in that were cached; as `input` where not written"
    )
    max_input_tokens: int | None = Field(None, ge=1, le=10**9, description="Most tokens it takes", examples=["128000"])
    max_output_tokens: int | None = Field(None, ge=1, le=10**9, description="Most tokens it gives", examples=["16384"])


class _PricesFile(strict.Strict):
    """Prices that replace the shipped ones."""

    prices: dict[str, _ListingModel] = Field(
        description="By `provider/model` (a provider's name in routes.yaml) or by model",
        examples=["{gpu/qwen3-8b: {input: 0.05, output: 0.2}}"],
    )


@dataclass(slots=True)
class PriceTable:
    """Prices of deployments. The shipped table is read when first needed, and only what was asked for is kept."""

    shipped: Path | None
    own: Mapping[str, Listing] = field(default_factory=dict)
    _known: dict[tuple[str, str], Listing] = field(default_factory=dict, init=False)

    @classmethod
    def load(cls, folder: Path, shipped: Path | None) -> PriceTable:
        """The table for a `routes.yaml` in `folder`: its `config/prices.yaml`, where there is one, comes first.

        Raises `ConfigError` with every problem of that file.
        """
        path = own_file(folder)
        return cls(shipped, _read_own(path) if path.exists() else {})

    def priced(self, config: Config) -> Config:
        """`config` with every deployment's listing on it, looked up in one reading: no call waits for the file."""
        routes = config.routes.values()
        self._look_up([(config.providers[one.provider], one) for route in routes for one in route.deployments])

        def listed(one: Deployment) -> Deployment:
            return replace(one, listing=self.listing(config.providers[one.provider], one))

        priced = {route.name: replace(route, deployments=tuple(map(listed, route.deployments))) for route in routes}
        return replace(config, routes=MappingProxyType(priced))

    def listing(self, provider: ProviderSpec, deployment: Deployment) -> Listing:
        """What is known of `deployment`, which stands behind `provider`."""
        if (provider.name, deployment.model) not in self._known:
            self._look_up([(provider, deployment)])
        return self._known[provider.name, deployment.model]

    def find(self, provider: ProviderSpec, deployment: Deployment) -> Price | None:
        """The price of `deployment`. None: nobody says, so its calls are recorded as unpriced."""
        return self.listing(provider, deployment).price

    def _look_up(self, pairs: Iterable[tuple[ProviderSpec, Deployment]]) -> None:
        table: Mapping[str, Any] | None = None
        for provider, deployment in pairs:
            names, seller = _names(provider, deployment.model)
            if names and table is None:
                table = _read_shipped(self.shipped)
            found = next((one for name in names if (one := _entry(table or {}, name, seller))), None)
            if found is None:
                found = Listing(FREE) if provider.type in ("embedded", "fake") else Listing()
            own = self.own.get(deployment.id) or self.own.get(deployment.model)
            self._known[provider.name, deployment.model] = own.over(found) if own else found


def own_file(folder: Path) -> Path:
    """Where the prices of a `routes.yaml` in `folder` stand, if it has any."""
    return folder / "config" / "prices.yaml"


def _names(provider: ProviderSpec, model: str) -> tuple[list[str], str | None]:
    """The shipped table's names for a model, and who must be its seller there (None: whoever).

    A server that merely speaks OpenAI's API has none: a model called `gpt-4o` there is not OpenAI's.
    """
    row = rows.find(provider.type)
    if provider.type == "litellm" or (row and row.litellm):
        prefix = f"{row.litellm}/" if row else ""
        whole = model if model.startswith(prefix) else prefix + model
        seller, slash, rest = whole.partition("/")
        return [whole, rest] if slash else [whole], seller if slash else None
    if row is None or row.seller is None:
        return [], None
    # A fine-tuned model, `ft:<base>:<organisation>:<name>:<id>`, is sold by its base.
    base = ":".join(model.split(":")[:2]) if model.startswith("ft:") else model
    return [base, f"{row.seller}/{base}"], row.seller


def _entry(table: Mapping[str, Any], name: str, seller: str | None) -> Listing | None:
    """The listing of `name`, where `seller` is who sells it."""
    entry = table.get(name)
    if not isinstance(entry, dict):
        return None
    sold_by = str(entry.get("litellm_provider", ""))
    # `bedrock_converse` and `vertex_ai-anthropic_models` are sold by bedrock and vertex_ai.
    same = seller is None or seller in sold_by.split("-") or sold_by.startswith((seller + "_", seller + "-"))
    if not same and not name.startswith(f"{seller}/"):
        return None
    return Listing(_price(entry), _whole(entry.get("max_input_tokens")), _whole(entry.get("max_output_tokens")))


_FIELDS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached",
    "output_cost_per_reasoning_token": "reasoning",
}


def _price(entry: Mapping[str, Any]) -> Price | None:
    """The price an entry of the shipped table states, or None where it is not by the token."""
    base: dict[str, Decimal] = {}
    above: dict[int, dict[str, Decimal]] = {}
    for key, value in entry.items():
        match = _ABOVE.fullmatch(key)
        name = _FIELDS.get(match[1] if match else key)
        if name is None or isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            continue
        # `repr` of a float is the shortest decimal that means it: the one that was written.
        rates = above.setdefault(int(match[2]) * 1000, {}) if match else base
        rates[name] = Decimal(repr(value))
    if entry.get("mode") in ("embedding", "rerank"):
        base.setdefault("output", Decimal(0))
    if "input" not in base or "output" not in base:
        return None
    tiers = tuple((limit, Rates(**{**base, **rates})) for limit, rates in sorted(above.items()))
    return Price(Rates(**base), tiers)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _read_shipped(path: Path | None) -> Mapping[str, Any]:
    """The shipped table, or nothing: prices must never keep the gateway from starting."""
    if path is None:
        return {}
    try:
        table = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        _log.warning("the shipped price table cannot be read, so calls are unpriced: %s", error)
        return {}
    return table if isinstance(table, dict) else {}


def _read_own(path: Path) -> dict[str, Listing]:
    """The listings of a `prices.yaml`. An empty one has none."""
    document = config_yaml.read(path)
    file = _validated(document)
    if document.problems:
        raise ConfigError.of(document.problems)
    models = file.prices if file else {}
    return {name: _own_listing(model) for name, model in models.items()}


def _validated(document: Document) -> _PricesFile | None:
    if document.data is None:
        return None
    try:
        return _PricesFile.model_validate(document.data)
    except ValidationError as error:
        for place, message in strict.complaints(
            error, _PricesFile, document.data, lambda _, value: strict.shown(value)
        ):
            document.refuse(place, message)
        return None


def _own_listing(model: _ListingModel) -> Listing:
    cached = None if model.cached_input is None else EXACT.divide(model.cached_input, _MILLION)
    rates = Rates(EXACT.divide(model.input, _MILLION), EXACT.divide(model.output, _MILLION), cached)
    return Listing(Price(rates), model.max_input_tokens, model.max_output_tokens)
