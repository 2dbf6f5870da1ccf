"""The house's rules as tables: floors, doors, traps, ceilings, words never said."""

from __future__ import annotations

import re

# Imports point down or stay on their floor; the first floor that matches counts. TYPE_CHECKING imports obey too:
# a name that cannot be written without looking up is a word on the wrong floor.
FLOORS = {
    "composition": ["gateway.server*", "gateway.cli*", "gateway.bench*"],
    "edges": ["gateway.api*", "promptlab.api*", "promptlab.workbench*"],
    "words": [
        *[
            "gateway",
            "gateway.types",
            *["gateway.owners", "gateway.users"],
            "gateway.errors",
            "gateway.routes",
            "gateway.strict",
            "gateway.money",
            "gateway.windows",
            "gateway.dialects*",
            "gateway.trace",
            *["gateway.changes", "gateway.sound", "gateway.recorded"],
        ],
        *["promptlab.entities*", "promptlab.errors", "promptlab.filters*"],
        *["promptlab.templates", "promptlab.ports", "promptlab.limits*", "promptlab.names", "promptlab.sources"],
        *["promptlab.prompt_template", "promptlab.semconv"],
    ],
    "machinery": [
        *[
            "gateway.settings",
            "gateway.config*",
            "gateway.counters*",
            "gateway.cache_*",
            "gateway.journal",
            "gateway.database*",
        ],
        *["gateway.tokens", "gateway.prices", "gateway.timing", "gateway.store*", "gateway.providers*"],
        *["gateway.importers*", "gateway.lanes"],
        *["gateway.telemetry", "gateway.metrics", "gateway.recording"],
        *["promptlab.store*", "promptlab.artifacts*", "promptlab.client*", "promptlab.delivery", "promptlab.otlp"],
    ],
    "policy": [
        *[
            "gateway.proxy",
            "gateway.keys",
            *["gateway.tenants", "gateway.audit", "gateway.alerts"],
            "gateway.limits",
            "gateway.budgets",
            "gateway.routing",
            "gateway.fallback",
        ],
        *["gateway.attempts", "gateway.health", "gateway.rescue", "gateway.byok", "gateway.shadow"],
        *["gateway.plane", "gateway.reload", "gateway.explain", "gateway.prompts"],
        *[
            "gateway.measures",
            *["gateway.lines", "gateway.filling"],
            "gateway.units",
            "gateway.usage",
            "gateway.ledger",
            "gateway.cache",
            "gateway.flights",
            "gateway.streaming",
        ],
        *[
            "promptlab",
            "promptlab.lab",
            "promptlab.prompts",
            "promptlab.existing*",
            "promptlab.registry*",
            *["promptlab.metrics", "promptlab.inputs", "promptlab.logged_models"],
            "promptlab.promptlab_runs",
            "promptlab.evaluation*",
            *["promptlab.scorers", "promptlab.webhooks", "promptlab.traces*", "promptlab.assessments"],
            "promptlab.recipes*",
        ],
    ],
}
UPWARDS = ["words", "machinery", "policy", "edges", "composition"]

# Each foreign library has one door: the modules that may import it. ruff's TID251 holds the same table (pyproject).
# `*` in these patterns stands for anything, dots too.
DOORS = {
    "fastapi": ["gateway.api.*", "gateway.server", "promptlab.api.*"],
    "starlette": ["gateway.api.*", "gateway.server", "promptlab.api.*"],
    "anyio": ["promptlab.api.*"],
    "gradio": ["promptlab.workbench.*"],
    "sqlalchemy": ["gateway.store*", "gateway.database*", "promptlab.store*"],
    "alembic": ["gateway.store*", "gateway.database*", "promptlab.store*"],
    "fsspec": ["promptlab.artifacts_remote"],
    "redis": ["gateway.counters*", "gateway.cache*"],
    "aiohappyeyeballs": ["gateway.providers.transport"],
    "python_multipart": ["gateway.api.*"],
    "httptools": ["gateway.providers.connection", "gateway.api.protocol", "gateway.bench*"],
    "uvloop": ["gateway.bench*"],
    "httpx": ["promptlab.client", "gateway.providers.litellm"],  # litellm is configured with httpx's, raises httpx's
    "opentelemetry": ["gateway.telemetry", "promptlab.otlp"],
    "google": ["promptlab.otlp"],  # protobuf's runtime, whose messages opentelemetry-proto declares
    "prometheus_client": ["gateway.api.*"],
    "pyarrow": ["gateway.cli*", "promptlab.evaluation.cases"],
    "numpy": ["promptlab.evaluation.*"],
    "scipy": ["promptlab.evaluation.*"],
    "jsonschema": ["promptlab.evaluation.scorers.structured"],
    "rapidfuzz": ["promptlab.evaluation.scorers.*"],
    "sacrebleu": ["promptlab.evaluation.scorers.similar"],
    "litellm": ["gateway.providers.litellm"],
    "xllamacpp": ["gateway.providers.llama_child", "gateway.providers.embedded"],
    "tiktoken": ["gateway.tokens"],
    "jinja2": ["promptlab.prompt_template"],
    "yaml": ["gateway.config*", "gateway.prices"],
    "uvicorn": ["gateway.server_process", "gateway.api.protocol"],
    "click": ["gateway.cli*"],
}
# Libraries that are like Python's own here: they shape data and do no IO.
EVERYWHERE = {"orjson", "pydantic", "pydantic_core"}
# What is imported though pyproject does not ask for it by this name: it is part of what does.
COMES_WITH = {
    "starlette": "fastapi",
    "anyio": "fastapi",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",
    "opentelemetry": "opentelemetry-sdk",
    "google": "opentelemetry-exporter-otlp-proto-http",
}
# For annotations only: `promptlab.ports` names the connection it hands out.
TYPING_ONLY = {"promptlab.ports": {"alembic", "sqlalchemy"}}
# The process's environment is a door too.
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv"}
ENVIRONMENT_DOORS = ["gateway.settings"]
# Too slow to be loaded before the first answer, or not wanted by most: imported inside functions only.
LAZY = {
    "jinja2": "*",
    "litellm": "*",
    "opentelemetry": "*",
    "google": "*",
    "xllamacpp": "*",
    **dict.fromkeys(("numpy", "scipy", "jsonschema", "rapidfuzz", "sacrebleu", "pyarrow"), "*"),
    "promptlab.evaluation*": "gateway.*",
    "promptlab.workbench*": "gateway.*",
    "gradio": "gateway.*",
}
# What importing the server must not load (the lab and litellm cost seconds and hundreds of megabytes).
NOT_AT_START = [
    "gateway.bench",
    "gradio",
    "litellm",
    *["opentelemetry", "google.protobuf"],
    "xllamacpp",
    "pandas",
    "numpy",
    "scipy",
    "jsonschema",
    "rapidfuzz",
    "sacrebleu",
    "promptlab.evaluation",
    "promptlab.workbench.app",
]

# What looks right and is not, wherever it is imported from.
TRAPS = {
    "BaseHTTPMiddleware": "it breaks streaming and cancellation",
    "ASGITransport": "it hands a stream over in one piece: test streams over a real socket",
}

FILE_CEILING, FUNCTION_CEILING = 400, 60

# The design's table *Words*: what we never say, and the word we say instead.
NEVER_SAY = {
    "endpoint": "route",
    "endpoints": "routes",
    "backend": "deployment",
    "backends": "deployments",
    "target": "deployment",
    "targets": "deployments",
    "vendor": "provider",
    "vendors": "providers",
    "payload": "answer",
    "payloads": "answers",
    "quota": "limit",
    "quotas": "limits",
    "failover": "fallback",
    "failovers": "fallbacks",
    "evaluator": "scorer",
    "evaluators": "scorers",
    "trial": "run",
    "trials": "runs",
}
# Where such a word is somebody else's (MLflow's wire says ENDPOINT_NOT_FOUND) or means another thing (a file's place).
SAID_HERE = {
    "promptlab.errors": {"endpoint"},
    "promptlab.api*": {"endpoint", "endpoints"},
    "promptlab.artifacts_disk": {"target"},
}

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")

# Files of store/ that serve the other files there; every other one is named for a noun its package's api/ knows.
STORE_TOOLS = {"search_registry", "search_logged_models", "search_traces", "spans", "whole_traces", "matching"} | {
    *["schema_registry", "schema_datasets", "schema_webhooks", "schema_inputs", "schema_logged_models"],
    "schema_traces",
    "usage_days",
    "terms",
    "tables",
    "migrations",
    "search",
    "paging",
    "filters",
    "schema",
    "tags",
    "upsert",
}
