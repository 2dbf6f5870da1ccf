"""The words of webhooks: what they can be told of, in MLflow's words. Times are UTC epoch milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple


class WebhookStatus(IntEnum):
    """Whether a webhook is told of anything."""

    ACTIVE = 1
    DISABLED = 2


class WebhookEntity(IntEnum):
    """What something happened to."""

    REGISTERED_MODEL = 1
    MODEL_VERSION = 2
    MODEL_VERSION_TAG = 3
    MODEL_VERSION_ALIAS = 4
    PROMPT = 5
    PROMPT_VERSION = 6
    PROMPT_TAG = 7
    PROMPT_VERSION_TAG = 8
    PROMPT_ALIAS = 9


class WebhookAction(IntEnum):
    """What happened."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3
    SET = 4


class Event(NamedTuple):
    """Something that a webhook can be told of."""

    entity: WebhookEntity
    action: WebhookAction

    def __str__(self) -> str:
        return f"{self.entity.name.lower()}.{self.action.name.lower()}"


_MODEL = {"name": "example_model"}
_VERSION = {**_MODEL, "version": "1"}
_PROMPT = {"name": "example_prompt"}
_PROMPT_VERSION = {**_PROMPT, "version": "1"}
_TAG = {"key": "example_key"}
_TAGS = {"tags": {"example_key": "example_value"}}
_E, _A = WebhookEntity, WebhookAction
#: Every event there is, with what a test message says of it.
EXAMPLES: Mapping[Event, Mapping[str, Any]] = {
    Event(_E.REGISTERED_MODEL, _A.CREATED): {**_MODEL, **_TAGS, "description": "An example registered model"},
    Event(_E.MODEL_VERSION, _A.CREATED): {
        **_VERSION,
        "source": "models:/123",
        "run_id": "abcd1234abcd5678",
        **_TAGS,
        "description": "An example model version",
    },
    Event(_E.MODEL_VERSION_TAG, _A.SET): {**_VERSION, **_TAG, "value": "example_value"},
    Event(_E.MODEL_VERSION_TAG, _A.DELETED): {**_VERSION, **_TAG},
    Event(_E.MODEL_VERSION_ALIAS, _A.CREATED): {**_MODEL, "alias": "example_alias", "version": "1"},
    Event(_E.MODEL_VERSION_ALIAS, _A.DELETED): {**_MODEL, "alias": "example_alias"},
    Event(_E.PROMPT, _A.CREATED): {**_PROMPT, **_TAGS, "description": "An example prompt"},
    Event(_E.PROMPT_VERSION, _A.CREATED): {
        **_PROMPT_VERSION,
        "template": "Hello {{name}}!",
        **_TAGS,
        "description": "An example prompt version",
    },
    Event(_E.PROMPT_TAG, _A.SET): {**_PROMPT, **_TAG, "value": "example_value"},
    Event(_E.PROMPT_TAG, _A.DELETED): {**_PROMPT, **_TAG},
    Event(_E.PROMPT_VERSION_TAG, _A.SET): {**_PROMPT_VERSION, **_TAG, "value": "example_value"},
    Event(_E.PROMPT_VERSION_TAG, _A.DELETED): {**_PROMPT_VERSION, **_TAG},
    Event(_E.PROMPT_ALIAS, _A.CREATED): {**_PROMPT, "alias": "example_alias", "version": "1"},
    Event(_E.PROMPT_ALIAS, _A.DELETED): {**_PROMPT, "alias": "example_alias"},
}


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who wants to be told of what. The secret signs what is sent, and is shown to nobody."""

    number: int
    id: str
    name: str
    url: str
    events: tuple[Event, ...]
    created: int
    updated: int
    description: str | None = None
    status: WebhookStatus = WebhookStatus.ACTIVE
    has_secret: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way. It is due at `due`, and was tried so many times."""

    number: int
    body: str
    due: int
    tries: int
    url: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class Sent:
    """How a message was taken: the status and the beginning of the answer, or why there was none."""

    status: int | None = None
    body: str = ""
    wrong: str | None = None
    retry_after: float | None = None

    @property
    def taken(self) -> bool:
        """Whether it was."""
        return self.status is not None and self.status < 400

    @property
    def again(self) -> bool:
        """Whether it may be taken later."""
        return self.status is None or self.status == 429 or self.status >= 500
