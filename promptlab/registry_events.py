"""What webhooks are told of the registry: of a model or of a prompt, by what it is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from promptlab.entities_registry import IS_PROMPT, PROMPT_TEXT, PROMPT_TYPE
from promptlab.entities_webhooks import Event
from promptlab.entities_webhooks import WebhookAction as Action
from promptlab.entities_webhooks import WebhookEntity as Entity
from promptlab.store import Connection, registered_models
from promptlab.webhooks import tell


class Change(Enum):
    """What happened: the event if it is a model's, and if it is a prompt's."""

    MODEL = Event(Entity.REGISTERED_MODEL, Action.CREATED), Event(Entity.PROMPT, Action.CREATED)
    VERSION = Event(Entity.MODEL_VERSION, Action.CREATED), Event(Entity.PROMPT_VERSION, Action.CREATED)
    TAG_SET = None, Event(Entity.PROMPT_TAG, Action.SET)
    TAG_DELETED = None, Event(Entity.PROMPT_TAG, Action.DELETED)
    VERSION_TAG_SET = Event(Entity.MODEL_VERSION_TAG, Action.SET), Event(Entity.PROMPT_VERSION_TAG, Action.SET)
    VERSION_TAG_DELETED = (
        Event(Entity.MODEL_VERSION_TAG, Action.DELETED),
        Event(Entity.PROMPT_VERSION_TAG, Action.DELETED),
    )
    ALIAS_SET = Event(Entity.MODEL_VERSION_ALIAS, Action.CREATED), Event(Entity.PROMPT_ALIAS, Action.CREATED)
    ALIAS_DELETED = Event(Entity.MODEL_VERSION_ALIAS, Action.DELETED), Event(Entity.PROMPT_ALIAS, Action.DELETED)


def tell_of(connection: Connection, change: Change, number: int, data: Mapping[str, Any]) -> None:
    """Have webhooks told what happened to the model of that number, if the transaction comes to be."""
    prompt = registered_models.is_prompt(connection, number)
    event = change.value[prompt]
    if event is not None:
        tell(connection, event, _without_marks(data) if prompt else data)


def _without_marks(data: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt's tags without those that make it one; its text has a place of its own."""
    said = dict(data)
    if "tags" in said:
        tags = dict(said["tags"])
        if "source" in said:  # of a version
            said["template"] = tags.get(PROMPT_TEXT)
            del said["source"], said["run_id"]
        said["tags"] = {key: value for key, value in tags.items() if key not in (IS_PROMPT, PROMPT_TYPE, PROMPT_TEXT)}
    return said
