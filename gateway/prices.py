"""What a deployment's tokens cost: litellm's shipped price table, and `config/prices.yaml` over it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import orjson
from pydantic import Field, ValidationError, model_validator

from gateway import config_yaml, strict
from gateway.config_yaml import Document
from gateway.errors import ConfigError
from gateway.money import EXACT, FREE, UNITS, Listing, Price, Rates, Unit
from gateway.providers import rows
from gateway.routes import Config, Deployment, ProviderSpec

_MILLION = Decimal(10**6)
_SIZED = re.compile(r"(?:[a-z_]+/)??(?:(low|medium|high|standard|hd)/)?(\d+)-x-(\d+)")
_ABOVE = re.compile(r"(.+)_above_(\d+)k_tokens")
_log = logging.getLogger(__name__)


class _ListingModel(strict.Strict):
    """One model's price: in USD per million tokens, or for one of what else it bills by."""

    input: Decimal | None = Field(None, ge=0, le=10**6, strict=False, description="Tokens in", examples=["0.15"])
    output: Decimal | None = Field(None, ge=0, le=10**6, strict=False, description="Tokens out", examples=["0.60"])
    cached_input: Decimal | None = Field(
        None, ge=0, le=10**6, strict=False, description="Tokens in that were cached; as `input` where not written"
    )
    image: Decimal | None = Field(None, gt=0, le=10**6, strict=False, description="USD an image", examples=["0.04"])
    character: Decimal | None = Field(None, gt=0, le=1, strict=False, description="USD a character spoken")
    second: Decimal | None = Field(None, gt=0, le=10**3, strict=False, description="USD a second transcribed")
    query: Decimal | None = Field(None, gt=0, le=10**3, strict=False, description="USD a query of a reranker")
    max_input_tokens: int | None = Field(None, ge=1, le=10**9, description="Most tokens it takes", examples=["128000"])
    max_output_tokens: int | None = Field(None, ge=1, le=10**9, description="Most tokens it gives", examples=["16384"])

    @model_validator(mode="after")
    def _whole(self) -> Self:
        units = [name for name in UNITS if getattr(self, name) is not None]
        if len(units) > 1:
            raise strict.refusal(f"{' and '.join(units)} cannot stand together.")
        for name in ("input", "output"):
            if getattr(self, name) is None and not (units and self.input is None and self.output is None):
                raise strict.refusal(f"{name} is missing. For example: {{input: 0.15, output: 0.60}}")
        return self


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
        # Some have no price of their own, only of their images by size.
        sizes = _sizes(table, name, seller)
        return Listing(Price(FREE.rates, unit=Unit("image", None, sizes))) if sizes else None
    if not _sold(entry, name, seller):
        return None
    sizes = _sizes(table, name, seller) if entry.get("mode") == "image_generation" else {}
    return Listing(_price(entry, sizes), _whole(entry.get("max_input_tokens")), _whole(entry.get("max_output_tokens")))


def _sold(entry: Mapping[str, Any], name: str, seller: str | None) -> bool:
    sold_by = str(entry.get("litellm_provider", ""))
    # `bedrock_converse` and `vertex_ai-anthropic_models` are sold by bedrock and vertex_ai.
    same = seller is None or seller in sold_by.split("-") or sold_by.startswith((seller + "_", seller + "-"))
    return same or name.startswith(f"{seller}/")


_FIELDS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached",
    "output_cost_per_reasoning_token": "reasoning",
    "cache_creation_input_token_cost": "written",
    "cache_creation_input_token_cost_above_1hr": "kept",
    "input_cost_per_audio_token": "heard",
    "input_cost_per_image_token": "seen",
    "output_cost_per_audio_token": "spoken",
}
#: Ways to be served that answers name in their `service_tier`.
_SERVED = ("flex", "priority")
#: What else a kind of model is billed by, and the fields that say its price: the first that says one.
_UNITS = {
    "image_generation": ("image", ("output_cost_per_image", "input_cost_per_image")),
    "audio_speech": ("character", ("input_cost_per_character",)),
    "audio_transcription": ("second", ("output_cost_per_second", "input_cost_per_second")),
    "rerank": ("query", ("input_cost_per_query",)),
}


def _price(entry: Mapping[str, Any], sizes: Mapping[str, Decimal] = MappingProxyType({})) -> Price | None:
    """The price an entry of the shipped table states; None where it states none."""
    unit = _unit(entry, sizes)
    found = _rates(entry, "")
    if found is None:
        return None if unit is None else Price(FREE.rates, unit=unit)
    served = {way: Price(*other) for way in _SERVED if (other := _rates(entry, f"_{way}")) and other != found}
    return Price(*found, unit=unit, served=served)


def _rates(entry: Mapping[str, Any], suffix: str) -> tuple[Rates, tuple[tuple[int, Rates], ...]] | None:
    """Rates and their tiers, as an entry has them for one way to be served: what that does not state is as usual."""
    base: dict[str, Decimal] = {}
    above: dict[int, dict[str, Decimal]] = {}
    for ending in dict.fromkeys(("", suffix)):
        for key, value in entry.items():
            if not key.endswith(ending) or (usd := _usd(value)) is None:
                continue
            match = _ABOVE.fullmatch(key.removesuffix(ending))
            name = _FIELDS.get(match[1] if match else key.removesuffix(ending))
            if name is not None:
                rates = above.setdefault(int(match[2]) * 1000, {}) if match else base
                rates[name] = usd
    _complete(entry, base)
    # To write to a cache is never cheaper than to read: what says so is for storage, or a slip.
    for name in ("written", "kept"):
        if name in base and base[name] < base.get("input", Decimal(0)):
            del base[name]
    if "input" not in base or "output" not in base:
        return None
    tiers = tuple((limit, Rates(**{**base, **rates})) for limit, rates in sorted(above.items()))
    return Rates(**base), tiers


def _complete(entry: Mapping[str, Any], base: dict[str, Decimal]) -> None:
    """Say what a kind of model leaves unsaid: what it writes is nothing, or pictures, or sound."""
    mode, pictures = entry.get("mode"), _usd(entry.get("output_cost_per_image_token"))
    if mode in ("embedding", "rerank"):
        base.setdefault("output", Decimal(0))
    elif mode == "image_generation" and pictures is not None:
        base["output"] = pictures
    elif mode == "audio_speech" and "spoken" in base:
        base["output"] = base["spoken"]


def _unit(entry: Mapping[str, Any], sizes: Mapping[str, Decimal]) -> Unit | None:
    kind, names = _UNITS.get(str(entry.get("mode")), ("", ()))
    rate = next((usd for name in names if (usd := _usd(entry.get(name)))), None)
    return Unit(kind, rate, sizes) if kind and (rate is not None or sizes) else None


def _usd(value: object) -> Decimal | None:
    """A price as it was written: `repr` of a float is the shortest decimal that means it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return Decimal(repr(value))


def _sizes(table: Mapping[str, Any], model: str, seller: str | None) -> dict[str, Decimal]:
    """The prices of a model's images by size, in entries of their own: `high/1024-x-1024/gpt-image-1`."""
    found: dict[str, Decimal] = {}
    for name, entry in table.items():
        match = _SIZED.fullmatch(name.removesuffix(f"/{model}")) if name.endswith(f"/{model}") else None
        if match is None or not isinstance(entry, dict) or not _sold(entry, name, seller):
            continue
        size = f"{match[2]}x{match[3]}"
        pixels = _usd(entry.get("input_cost_per_pixel"))
        usd = _usd(entry.get("input_cost_per_image")) or (pixels and pixels * int(match[2]) * int(match[3]))
        if usd:
            found[f"{match[1]}/{size}" if match[1] else size] = usd
    return found


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
    rates = FREE.rates
    if model.input is not None and model.output is not None:
        rates = Rates(EXACT.divide(model.input, _MILLION), EXACT.divide(model.output, _MILLION), cached)
    unit = next((Unit(name, usd) for name in UNITS if (usd := getattr(model, name)) is not None), None)
    return Listing(Price(rates, unit=unit), model.max_input_tokens, model.max_output_tokens)
