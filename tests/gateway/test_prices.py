"""Prices: whose they are, exact arithmetic, and the operator's own file."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest

from gateway import config
from gateway.errors import ConfigError
from gateway.money import FREE, Listing, Price, Rates, Tokens
from gateway.prices import PriceTable
from gateway.routes import Deployment, ProviderSpec
from gateway.settings import price_map_file

D = Decimal

SHIPPED = {
    "gpt-x": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "max_input_tokens": 128000,
        "max_output_tokens": 16384,
    },
    "openai/only-prefixed": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 1e-06,
    },
    "ft:gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 3e-07, "output_cost_per_token": 1.2e-06},
    "claude-x": {
        "litellm_provider": "anthropic",
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 1.5e-05,
        "cache_creation_input_token_cost": 1e-06,  # a slip
    },
    "us.claude-x": {
        "litellm_provider": "bedrock_converse",
        "input_cost_per_token": 3.3e-06,
        "output_cost_per_token": 1.65e-05,
    },
    "embed-x": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 2e-08},
    "picture-x": {"litellm_provider": "openai", "mode": "image_generation", "output_cost_per_image": 0.04},
    "azure/gpt-x": {"litellm_provider": "azure", "input_cost_per_token": 9e-07, "output_cost_per_token": 1e-06},
    "groq/openai/gpt-x": {"litellm_provider": "groq", "input_cost_per_token": 8e-07, "output_cost_per_token": 1e-06},
    "command-x": {"litellm_provider": "cohere_chat", "input_cost_per_token": 7e-07, "output_cost_per_token": 1e-06},
    "half-x": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06},
    "odd-x": {
        "litellm_provider": "openai",
        "input_cost_per_token": "free",
        "output_cost_per_token": -1,
        "max_output_tokens": "many",
    },
    "tiered-x": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 2e-06,
        "output_cost_per_reasoning_token": 4e-06,
        "input_cost_per_token_above_200k_tokens": 3e-06,
        "output_cost_per_token_above_200k_tokens": 5e-06,
        "input_cost_per_token_batches": 1e-09,
        "input_cost_per_token_above_200k_tokens_batches": 1e-09,
    },
}


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(SHIPPED))
    return path


def listing(table: PriceTable, kind: str, model: str, name: str = "p") -> Listing:
    return table.listing(ProviderSpec(name, kind), Deployment(name, model))


@pytest.mark.parametrize(
    ("kind", "model", "input_price"),
    [
        ("openai", "gpt-x", "1.5E-7"),
        ("openai", "only-prefixed", "0.000001"),
        ("openai", "ft:gpt-x:me:name:id", "3E-7"),
        ("openai", "embed-x", "2E-8"),
        ("openai", "claude-x", None),
        ("openai", "picture-x", "0"),
        ("openai", "half-x", None),
        ("openai", "odd-x", None),
        ("openai", "nobody-knows", None),
        ("litellm", "gpt-x", "1.5E-7"),
        ("litellm", "openai/gpt-x", "1.5E-7"),
        ("litellm", "openai/only-prefixed", "0.000001"),
        ("litellm", "anthropic/claude-x", "0.000003"),
        ("litellm", "bedrock/us.claude-x", "0.0000033"),
        ("litellm", "groq/gpt-x", None),
        ("openai_compatible", "gpt-x", None),
        ("anthropic", "claude-x", "0.000003"),
        ("anthropic", "gpt-x", None),
        ("azure", "gpt-x", "9E-7"),
        ("azure_deployments", "gpt-x", "9E-7"),
        ("groq", "openai/gpt-x", "8E-7"),
        ("groq", "gpt-x", None),
        ("cohere", "command-x", "7E-7"),
        ("bedrock", "us.claude-x", "0.0000033"),
        ("bedrock", "bedrock/us.claude-x", "0.0000033"),
        ("vertex", "claude-x", None),
        ("vllm", "gpt-x", None),
        ("openrouter", "gpt-x", None),
        ("embedded", "smollm2", "0"),
        ("fake", "gpt-x", "0"),
    ],
)
def test_whose_price_a_deployment_has(shipped: Path, kind: str, model: str, input_price: str | None) -> None:
    price = listing(PriceTable(shipped), kind, model).price
    assert (price and price.rates.input) == (input_price and D(input_price))


@pytest.mark.parametrize(
    ("price", "tokens", "nano"),
    [
        (Price(Rates(D("1.5E-7"), D("6E-7"))), Tokens(100, 20), 27_000),
        (Price(Rates(D("1.5E-7"), D("6E-7"), D("7.5E-8"))), Tokens(100, 20, cached=40), 24_000),
        (Price(Rates(D("1.5E-7"), D("6E-7"))), Tokens(100, 20, cached=40), 27_000),
        # Below a nano-dollar a token: rounded up once for the call, never per token or per kind.
        (Price(Rates(D("1E-10"), D("1E-10"))), Tokens(1, 0), 1),
        (Price(Rates(D("1E-10"), D("1E-10"))), Tokens(5, 5), 1),
        (Price(Rates(D("1E-10"), D("1E-10"))), Tokens(5, 6), 2),
        (Price(Rates(D("3E-10"), D("3E-10"), D("2E-10"))), Tokens(5, 5, cached=5), 3),
        (Price(Rates(D("1E-10"), D("1E-10"))), Tokens(10**9, 0), 10**8),
        (Price(Rates(D("1.0000000000000001E-6"), D(0))), Tokens(1, 0), 1001),
        (Price(Rates(D("1.0000000000000001E-6"), D(0))), Tokens(10**16, 0), 10**19 + 1000),
        (Price(Rates(D("1E-6"), D("2E-6"), None, D("4E-6"))), Tokens(0, 10, reasoning=4), 28_000),
        (FREE, Tokens(10**9, 10**9, 10**8), 0),
        (Price(Rates(D("1E-6"), D("2E-6"))), Tokens(), 0),
        # Counts no provider should send are bounded, so that a cost is never negative.
        (Price(Rates(D("1E-6"), D("2E-6"), D("1E-7"))), Tokens(10, 0, cached=50), 1000),
        (Price(Rates(D("1E-6"), D("2E-6"))), Tokens(-5, 3, cached=-4), 6000),
        (Price(Rates(D("1E-6"), D("2E-6")), ((200, Rates(D("3E-6"), D("5E-6"))),)), Tokens(200, 1), 202_000),
        (Price(Rates(D("1E-6"), D("2E-6")), ((200, Rates(D("3E-6"), D("5E-6"))),)), Tokens(201, 1), 608_000),
    ],
)
def test_cost_is_exact_and_rounded_up_once(price: Price, tokens: Tokens, nano: int) -> None:
    assert price.cost(tokens) == nano


def test_every_shipped_price_costs_what_fractions_say() -> None:
    source = price_map_file()
    assert source is not None
    table = PriceTable(source)
    spec = ProviderSpec("p", "litellm")
    models = ["gpt-4o-mini", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-pro", "text-embedding-3-small"]
    for model in models:
        price = table.find(spec, Deployment("p", model))
        assert price is not None, model
        rates = price.rates
        cached = rates.input if rates.cached is None else rates.cached
        exact = 7 * Fraction(rates.input) + 3 * Fraction(cached) + 11 * Fraction(rates.output)
        assert price.cost(Tokens(10, 11, cached=3)) == ceil(exact * 10**9), model


def test_tiers_and_reasoning_are_read_and_batch_prices_are_not(shipped: Path) -> None:
    price = listing(PriceTable(shipped), "openai", "tiered-x").price
    assert price == Price(
        Rates(D("0.000001"), D("0.000002"), None, D("0.000004")),
        ((200_000, Rates(D("0.000003"), D("0.000005"), None, D("0.000004"))),),
    )


def test_writing_to_a_cache_is_never_cheaper_than_reading(shipped: Path) -> None:
    price = listing(PriceTable(shipped), "anthropic", "claude-x").price
    assert price == Price(Rates(D("0.000003"), D("0.000015")))


def test_token_bounds_come_along_where_they_are_stated(shipped: Path) -> None:
    table = PriceTable(shipped)
    stated, odd = listing(table, "openai", "gpt-x"), listing(table, "openai", "odd-x")
    assert (stated.max_input_tokens, stated.max_output_tokens) == (128000, 16384)
    assert (odd.max_input_tokens, odd.max_output_tokens) == (None, None)


def test_own_prices_come_before_the_shipped_ones(tmp_path: Path, shipped: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(
        "prices:\n"
        "  p/gpt-x: {input: 0.1, output: 0.3}\n"
        "  gpt-x: {input: 7, output: 7}\n"
        "  qwen: {input: 0.05, output: 1e-3, cached_input: 0.0001, max_output_tokens: 8192}\n"
    )
    table = PriceTable.load(tmp_path, shipped)
    first = listing(table, "openai", "gpt-x")
    assert first == Listing(Price(Rates(D("1E-7"), D("3E-7"))), 128000, 16384)
    assert listing(table, "openai", "gpt-x", "other").price == Price(Rates(D("0.000007"), D("0.000007")))
    assert listing(table, "openai_compatible", "qwen") == Listing(
        Price(Rates(D("5E-8"), D("1E-9"), D("1E-10"))), None, 8192
    )
    assert listing(table, "fake", "qwen").price == listing(table, "openai_compatible", "qwen").price


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "prices: {a: {input: 1}}",
            "prices.yaml:1: prices.a: output is missing. For example: {input: 0.15, output: 0.60}",
        ),
        ("prices: {a: {image: 1, second: 1}}", "prices.yaml:1: prices.a: image and second cannot stand together."),
        (
            "prices: {a: {image: 1, output: 1}}",
            "prices.yaml:1: prices.a: input is missing. For example: {input: 0.15, output: 0.60}",
        ),
        (
            "prices:\n  a:\n    input: cheap\n    output: 1\n",
            "prices.yaml:3: prices.a.input: must be a number, not 'cheap'. For example: 0.15",
        ),
        (
            "prices:\n  a: {input: -1, output: .inf}\n",
            (
                "prices.yaml:2: prices.a.input: must be at least 0, not -1. For example: 0.15\n"
                "prices.yaml:2: prices.a.output: must be a finite number, not inf. For example: 0.60"
            ),
        ),
        (
            "prices:\n  a: {input: 1, outptu: 2, output: 2}\n",
            "prices.yaml:2: prices.a.outptu: unknown key. Did you mean 'output'?",
        ),
        (
            "gpt-x: {input: 1, output: 1}\n",
            (
                "prices.yaml:1: prices: is missing. For example: {gpu/qwen3-8b: {input: 0.05, output: 0.2}}\n"
                "prices.yaml:1: gpt-x: unknown key. Known here: prices."
            ),
        ),
        ("prices: [\n", None),
    ],
)
def test_a_bad_file_is_refused_whole(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "config" / "prices.yaml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        PriceTable.load(tmp_path, None)
    said = str(caught.value).replace(str(path), "prices.yaml")
    if message and message.endswith("…"):
        assert said.startswith(message[:-1])
        return
    assert said == message if message else said.startswith("prices.yaml:2: is not YAML: ")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "prices: {}\n"])
def test_a_file_without_prices_changes_nothing(tmp_path: Path, shipped: Path, text: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "prices.yaml").write_text(text)
    assert listing(PriceTable.load(tmp_path, shipped), "openai", "gpt-x") == listing(
        PriceTable.load(tmp_path / "none", shipped), "openai", "gpt-x"
    )


@pytest.mark.parametrize("content", [None, b"{half", b"[]"])
def test_a_broken_shipped_table_leaves_calls_unpriced(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "map.json"
    if content is not None:
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert listing(PriceTable(path), "openai", "gpt-x") == Listing()
    assert ("cannot be read" in caplog.text) == (content != b"[]")


def test_pricing_a_configuration_reads_the_shipped_table_once(tmp_path: Path, shipped: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        "providers: {o: {type: openai, api_key: '${K}'}, l: {type: embedded}}\n"
        "routes:\n"
        "  a: {deployments: [{provider: o, model: gpt-x}, {provider: l, model: smollm2}]}\n"
        "  b: {deployments: [{provider: o, model: embed-x}]}\n"
    )
    loaded = config.load(routes, {"K": "v"})
    table = PriceTable(shipped)
    priced = table.priced(loaded)
    shipped.unlink()
    prices = {one.id: one.listing.price for route in priced.routes.values() for one in route.deployments}
    assert prices["l/smollm2"] == FREE
    assert prices["o/gpt-x"] == Price(Rates(D("1.5E-7"), D("6E-7"), D("7.5E-8")))
    assert prices["o/embed-x"] == Price(Rates(D("2E-8"), D(0)))


def test_a_table_that_is_not_needed_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert listing(PriceTable(tmp_path / "absent.json"), "embedded", "smollm2").price == FREE
    assert caplog.text == ""
