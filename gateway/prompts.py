"""Prompts as models: which version a name means, who may call it, and the conversation that it makes of a call.

`prompt:support` is the version that its alias `production` stands for, `prompt:support@candidate` another alias's,
`prompt:support/3` version 3. A version brings its messages, its route and the parameters it was made with; the call
brings variables, and messages that follow.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from gateway.dialects.dialect import Losses
from gateway.dialects.registry import CONVERSATIONS
from gateway.errors import BadRequest, Forbidden, GatewayError, Overloaded, UnknownModel
from gateway.owners import Key
from gateway.routes import Task

log = logging.getLogger(__name__)

PREFIX = "prompt:"
#: The alias that a name alone means.
USUAL = "production"
#: A version is asked for anew when what is known of it is this old, in seconds; beside the calls, and then before them.
_SOON, _STALE = 0.4, 0.9
#: Prompts that are known at once. The one that was first asked for goes first.
_MOST = 1000
#: The longest value of a variable, in characters.
LONGEST = 1_000_000

#: Names of models are kept; one that is longer than any prompt's, alias and all, is not looked at.
_LONGEST_NAME = 600
#: Characters of a prompt's name in a record.
_TOLD = 280
#: Where the next messages go, in each dialect.
_FOLLOW = {Task.CHAT: "messages", Task.MESSAGES: "messages", Task.RESPONSES: "input"}
#: One parameter, by its names in the dialects and in MLflow's model config.
_SAME = {"max_completion_tokens": "max_tokens", "max_output_tokens": "max_tokens", "stop_sequences": "stop"}
#: What is in a model config and is no parameter of a call.
_OURS = frozenset(("model_name", "provider", "overrides", "model", "messages", "input", "stream", "variables"))
_ASKED = re.compile(r"prompt:([^/@:]+)(?:@([\w\-]+)|/([0-9]{1,18}))?")


class Asked(NamedTuple):
    """What a call names: a prompt, and an alias or a version of it.

    `patterns` are what a key's routes may call it: the prompt as a whole, and this alias or version of it.
    """

    name: str
    alias: str | None
    version: int | None
    patterns: tuple[str, str]

    @classmethod
    def of(cls, name: str, alias: str | None, version: int | None = None) -> Asked:
        """An alias of a prompt, or a version."""
        whole = f"{PREFIX}{name}"
        return cls(name, alias, version, (whole, f"{whole}@{alias}" if version is None else f"{whole}/{version}"))


@functools.lru_cache(4096)
def parse(model: str) -> Asked:
    """What `model`, which begins with `prompt:`, names. Raises `UnknownModel`."""
    found = _ASKED.fullmatch(model) if len(model) <= _LONGEST_NAME else None
    if found is None:
        raise UnknownModel(
            f"The model '{model[:100]}' does not exist here. Call a prompt as 'prompt:name', 'prompt:name@alias' or "
            "'prompt:name/3'.",
            param="model",
        )
    name, alias, version = found.groups()
    return Asked.of(name, None, int(version)) if version else Asked.of(name, alias or USUAL)


class Prompt(Protocol):
    """One version of a prompt. `slow`: to fill it in takes a program's time, not a text's."""

    name: str
    version: int
    config: Mapping[str, Any]
    response_format: Mapping[str, Any] | None
    slow: bool

    def messages(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Its messages, as chat completions have them, with `values` in it. Raises `BadRequest`."""


class Source(Protocol):
    """Where prompts are kept. It is asked in threads, and may take its time."""

    def find(self, asked: Asked) -> Prompt:
        """The version that is asked for. Raises `UnknownModel`, and `BadRequest` for one that cannot be used."""

    def aliases(self) -> Mapping[str, tuple[str, ...]]:
        """Every prompt with its aliases, by name."""


class Version:
    """A version of a prompt, with what does not change from call to call worked out once."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        #: How records and headers name it.
        name = prompt.name if prompt.name.isascii() and prompt.name.isprintable() else quote(prompt.name)
        self.id = f"{name[:_TOLD]}/{prompt.version}"
        self.route = prompt.config.get("model_name")
        self._parameters = _parameters(prompt)
        listed = prompt.config.get("overrides")
        names = listed if isinstance(listed, list) else []
        #: Parameters that a caller may say otherwise.
        self.open = frozenset(_SAME.get(name, name) for name in names if isinstance(name, str))

    def call(self, messages: list[dict[str, Any]], task: Task) -> tuple[dict[str, Any], AbstractSet[str]]:
        """Its call in a dialect, and which of the fields are its own doing."""
        chat = {"model": self.route, "messages": messages, **self._parameters}
        if task is Task.CHAT:
            return chat, self._parameters.keys()
        own = CONVERSATIONS[task].from_chat(chat, Losses())
        # What a dialect says of any conversation is no version's doing.
        any_other = CONVERSATIONS[task].from_chat({"model": self.route, "messages": _ANY}, Losses())
        return own, {name for name in own if name not in any_other or own[name] != any_other[name]}


@dataclass(slots=True)
class _Known:
    version: Version
    since: float


class Prompts:
    """Finds prompts for calls without making them wait: what was found is asked for anew while it is used.

    A moved alias is obeyed within a second. A source that does not answer leaves those that are known as they are.
    One event loop uses it.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: dict[Asked, _Known] = {}
        self._reading: dict[Asked, asyncio.Task[Version]] = {}
        self._listed: tuple[float, Mapping[str, tuple[str, ...]]] = (float("-inf"), {})

    async def find(self, asked: Asked) -> Version:
        """The version that `asked` means now. Raises what its source does, and `Overloaded`."""
        known = self._known.get(asked)
        age = _STALE if known is None else time.monotonic() - known.since
        if known is None or age >= _STALE:
            return await asyncio.shield(self._read(asked))
        if age >= _SOON:
            self._read(asked)
        return known.version

    def _read(self, asked: Asked) -> asyncio.Task[Version]:
        task = self._reading.get(asked)
        if task is None:
            task = self._reading[asked] = asyncio.create_task(self._ask(asked))
            task.add_done_callback(lambda done: self._over(asked, done))
        return task

    async def _ask(self, asked: Asked) -> Version:
        since = time.monotonic()
        try:
            version = Version(await asyncio.to_thread(self._source.find, asked))
        except GatewayError:
            self._known.pop(asked, None)
            raise
        except Exception as error:
            known = self._known.get(asked)
            log.warning("The registry does not answer (%s); prompts stay as they are known", type(error).__name__)
            if known is None:
                raise Overloaded("The registry does not answer.", code="database_unavailable") from None
            # Asked again soon, beside the calls.
            known.since = time.monotonic() - _SOON
            return known.version
        if asked not in self._known and len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[asked] = _Known(version, since)
        return version

    def _over(self, asked: Asked, done: asyncio.Task[Version]) -> None:
        del self._reading[asked]
        if not done.cancelled():
            done.exception()  # whoever waited has it; where nobody did, the next call will

    async def names(self, key: Key) -> list[str]:
        """The prompts `key` may call, as calls name them: those with the usual alias by their name alone."""
        since, listed = self._listed
        if time.monotonic() - since >= _STALE:
            since = time.monotonic()
            try:
                listed = await asyncio.to_thread(self._source.aliases)
            except Exception as error:
                log.warning("The registry does not answer (%s): its prompts are not listed anew", type(error).__name__)
            self._listed = since, listed
        asked = (Asked.of(name, alias) for name, aliases in listed.items() for alias in aliases)
        return [one.patterns[one.alias != USUAL] for one in asked if key.may_call_one_of(one.patterns)]

    async def close(self) -> None:
        """Ask for nothing more."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check_allowed(asked: Asked, key: Key) -> None:
    """Raise `Forbidden` unless `key` may call the prompt. The route behind it needs no permission of its own."""
    if not key.may_call_one_of(asked.patterns):
        raise Forbidden(
            f"This key may not call '{asked.patterns[1]}'. GET /v1/models lists what it may.", param="model"
        )


async def filled(version: Version, task: Task, body: Mapping[str, Any], key: Key) -> dict[str, Any]:
    """The call that a prompt makes of `body`, in the caller's own dialect: an ordinary one, of the version's route.

    Raises `BadRequest`, which names what is wrong with variables or parameters, and `Forbidden` where the key is
    denied the route.
    """
    prompt, route = version.prompt, version.route
    if task not in _FOLLOW:
        paths = ", ".join(f"/v1/{one.value}" for one in _FOLLOW)
        raise BadRequest(f"A prompt is a conversation: POST it to one of {paths}.", param="model", code="wrong_task")
    if not isinstance(route, str) or not route:
        raise BadRequest(
            f"Version {prompt.version} of the prompt '{prompt.name}' names no route: register one with a model_config "
            "whose model_name is a route.",
            param="model",
            code="prompt_without_route",
        )
    if key.denies(route):
        raise Forbidden(f"This key may not call the model '{route}', which is this prompt's.", param="model")
    values = _variables(body)
    messages = await asyncio.to_thread(prompt.messages, values) if prompt.slow else prompt.messages(values)
    return _joined(version, messages, body, task)


_ASIDE = frozenset(("variables", "model"))
#: What a dialect says of any conversation is no version's doing.
_ANY = [{"role": "user", "content": "-"}]


def _variables(body: Mapping[str, Any]) -> Mapping[str, Any]:
    values = body.get("variables")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadRequest("'variables' must be an object: a value for each variable.", param="variables")
    long = [name for name, value in values.items() if isinstance(value, str) and len(value) > LONGEST]
    if long:
        raise BadRequest(
            f"Too long, with more than {LONGEST} characters: {', '.join(name[:100] for name in long)}.",
            param="variables",
            code="invalid_variables",
        )
    return values


def _parameters(prompt: Prompt) -> dict[str, Any]:
    """What the version says of its calls, as chat completions say it."""
    found = {_SAME.get(name, name): value for name, value in prompt.config.items() if name not in _OURS}
    wanted = prompt.response_format
    if wanted:
        # MLflow keeps the schema of the answer; OpenAI wants it wrapped and named. What is wrapped already stays.
        wrapped = wanted.get("type") in ("json_schema", "json_object", "text")
        name = re.sub(r"[^\w\-]", "_", prompt.name)[:64]
        schema = {"type": "json_schema", "json_schema": {"name": name, "schema": dict(wanted)}}
        found["response_format"] = dict(wanted) if wrapped else schema
    return found


def _joined(version: Version, messages: list[dict[str, Any]], body: Mapping[str, Any], task: Task) -> dict[str, Any]:
    follow = _FOLLOW[task]
    further = body.get(follow) or []
    if isinstance(further, str) and task is Task.RESPONSES:
        further = [{"role": "user", "content": further}]
    if not isinstance(further, list):
        raise BadRequest(f"'{follow}' must be a list of the messages that follow the prompt's.", param=follow)
    joined, fixed = version.call(messages, task)
    said = joined[follow] if isinstance(joined[follow], list) else [{"role": "user", "content": joined[follow]}]
    joined[follow] = [*said, *further]
    given = [name for name in body if name not in _ASIDE and name != follow]
    if given:
        _add(version, joined, fixed, {name: body[name] for name in given})
    return joined


def _add(version: Version, joined: dict[str, Any], fixed: AbstractSet[str], given: Mapping[str, Any]) -> None:
    """Put the caller's own parameters into `joined`, where the version lets them be said."""
    named = {_SAME.get(name, name): name for name in joined}
    for name, value in given.items():
        same = _SAME.get(name, name)
        mine = named.get(same)
        if mine is not None and mine in fixed and value != joined[mine] and same not in version.open:
            prompt = version.prompt
            raise BadRequest(
                f"'{name}' is set by version {prompt.version} of the prompt '{prompt.name}'. Leave it out, or register "
                f"a version whose model_config has '{same}' in its overrides.",
                param=name,
                code="prompt_parameter_fixed",
            )
        if mine is not None and mine != name:
            del joined[mine]
        joined[name] = value
