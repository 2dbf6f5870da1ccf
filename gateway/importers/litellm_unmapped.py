"""What a LiteLLM proxy's configuration says that ours does not: what each key means, and what to do instead."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

_DEFAULT = "a default for callers who send none. A route adds nothing to a request: have the callers send it."
_PRICE = "a price. Write it in config/prices.yaml beside routes.yaml, in USD a million tokens."
_ABILITY = "what the model can do. Nothing here needs to be told: the upstream judges."
_COUNT = "how often is asked again after which error. Here it is the route's 'retries', whatever the error."
_REST = "when a failing deployment rests. Here it is the route's 'cooldown', whatever the error."
_DROPS = (
    "leaving out what an upstream does not take. Here its refusal reaches the caller: have the callers not send it."
)
_BUDGET = "money a deployment may spend. Deployments have no budget here."
_FILTER = "another model after a filter's refusal. A refusal is an answer here and is kept."
_REDIS = "Redis for what processes share. Set PROMPTYARD_REDIS_URL instead."
_CACHE = "a cache of answers. Here it is the route's own: `cache: {ttl: …}`."
_LOGS = "where calls are reported. Here every call is a usage record: see `promptyard usage` and /admin/usage."
_DATABASE = "LiteLLM's database. Its keys and spend are not read: make new keys with `promptyard keys create`."
_TAGS = "routing by tags. Give each group of callers a route of its own, and keys that may call only that."
_GUARD = "checks on what is said. There is none here: keep them in front, or in the application."

#: By section and pattern of the key, the first that fits. A value that switches something off is not lost.
_MESSAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "litellm_params": (
        ("*cost*", _PRICE),
        ("additional_drop_params", _DROPS),
        ("allowed_openai_params", _DROPS),
        ("retry_policy", _COUNT),
        ("cooldown_time", _REST),
        ("max_budget", _BUDGET),
        ("budget_duration", _BUDGET),
        ("tags", _TAGS),
        ("tag_regex", _TAGS),
        ("*timeout_by_service_tier", "a timeout for some calls only. A route has one set of timeouts."),
        ("mock_response", "an answer without a model. Here that is a provider of its own: {type: fake, script: …}."),
        ("default_api_key_*_limit", "a limit for keys. Give each key its own: `promptyard keys create --rpm …`."),
        ("configurable_clientside_auth_params", "lets callers choose the upstream. Callers never do here."),
        ("auto_router_*", "a route chosen by what is asked. Callers name the route here."),
        ("guardrails", _GUARD),
    ),
    "model_info": (
        ("*cost*", _PRICE),
        ("supports_*", _ABILITY),
        ("max_*tokens", "how much the model takes. It is known here for priced models: see config/prices.yaml."),
        ("base_model", "whose price counts. Write the price in config/prices.yaml beside routes.yaml."),
        ("access_groups", "who may call. Name the routes a key may call: `promptyard keys create --routes …`."),
        ("team_*", "who may call. Name the routes a key may call: `promptyard keys create --routes …`."),
        ("*", "a note on the model. A comment in routes.yaml can keep it."),
    ),
    "router_settings": (
        ("routing_strategy_args", "fine points of how a deployment is chosen. A strategy has none here."),
        ("*retr*", _COUNT),
        ("allowed_fails*", _REST),
        ("*cooldown*", _REST),
        ("redis_*", _REDIS),
        ("*cach*", _CACHE),
        ("content_policy_fallbacks", _FILTER),
        ("provider_budget_config", _BUDGET),
        ("*tag*", _TAGS),
        ("enable_pre_call_checks", "leaving out what is too small. Here larger models are `context_fallbacks`."),
    ),
    "litellm_settings": (
        ("modify_params", _DROPS),
        ("cache*", _CACHE),
        ("*callback*", _LOGS),
        ("*log*", _LOGS),
        ("set_verbose", "a log that says more. Set PROMPTYARD_LOG_LEVEL=debug instead."),
        ("json_logs", _LOGS),
        ("content_policy_fallbacks", _FILTER),
        ("max_*budget*", "money a caller may spend. Keys have limits of requests and tokens here, no budget."),
        ("budget_duration", "money a caller may spend. Keys have limits of requests and tokens here, no budget."),
        ("*guardrail*", _GUARD),
        ("ssl_verify", "whether an upstream's certificate is checked. It always is here."),
    ),
    "general_settings": (
        ("master_key", "the key that may manage. Set PROMPTYARD_ADMIN_KEY to one when you serve."),
        ("database_*", _DATABASE),
        ("store_model_in_db", _DATABASE),
        ("store_prompts_in_spend_logs", _LOGS),
        ("alert*", _LOGS),
        ("*parallel_requests", "calls at once. Write `limits: {concurrency: …}` at each route, or give it to keys."),
        ("*redis*", _REDIS),
        ("pass_through_endpoints", "paths handed to other servers. Only models are served here."),
        ("*request_size*", "the largest body. Set PROMPTYARD_MAX_BODY instead."),
        ("*auth*", "how callers are known. Callers show a key here: `promptyard keys create`."),
    ),
    "": (
        ("environment_variables", "variables for the process. Set them where you start `promptyard serve`."),
        ("guardrails", _GUARD),
        ("mcp_*", "tools for models. Only models are served here."),
        ("vector_store*", "stores of documents. Only models are served here."),
        ("include", "more files. Import each, and join what they give."),
        ("*callback*", _LOGS),
        ("prompts", "prompts by name. Register them in the lab, or with MLflow's client."),
    ),
}  # fmt: skip

_SAMPLING = frozenset((
    "temperature", "top_p", "top_k", "n", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias",
    "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort",
    "thinking", "user", "metadata", "max_completion_tokens", "modalities", "verbosity", "service_tier", "store",
    "stream", "stream_options", "extra_body", "dimensions", "encoding_format", "input_type", "web_search_options",
    "cache_control_injection_points",
))  # fmt: skip
_UNKNOWN = {
    "litellm_params": "not known here, and not copied: it may be a secret. If litellm needs it, write it under the "
    "provider's 'options'.",
    "": "a part of LiteLLM's proxy that has no counterpart here.",
}
_OTHER = "a setting of LiteLLM's proxy that has no counterpart here."


def message(section: str, key: str) -> str:
    """What `key` of `section` (nothing: of the file itself) means, and what to do instead."""
    if section == "litellm_params" and key in _SAMPLING:
        return _DEFAULT
    found = next((text for pattern, text in _MESSAGES[section] if fnmatchcase(key, pattern)), None)
    return found or _UNKNOWN.get(section, _OTHER)


def says_nothing(section: str, key: str, value: Any) -> bool:
    """Whether leaving `key` out changes nothing: switched off, empty, or how it is here anyway."""
    if value is None or value is False or value == 0 or value in ("", [], {}):
        return section != "litellm_params" or key not in _SAMPLING or value is None
    return (key, value) in (("routing_strategy", "simple-shuffle"), ("ssl_verify", True))
