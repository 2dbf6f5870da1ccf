"""What the search of evaluation datasets knows of MLflow's grammar."""

from __future__ import annotations

from promptlab.filters import Entity, Grammar

_ENTITIES = {"attribute": Entity.ATTRIBUTE, "tag": Entity.TAG, "tags": Entity.TAG}

DATASETS = Grammar(
    entities=_ENTITIES,
    names=tuple(_ENTITIES),
    entity_word="Valid entity types are",
    text_keys=frozenset({"name", "created_by", "last_updated_by"}),
    number_keys=frozenset({"created_time", "last_update_time"}),
    list_keys=frozenset({"name"}),
    presence=frozenset({Entity.TAG}),
    ordered=frozenset({Entity.ATTRIBUTE}),
    order_keys=frozenset({"name", "created_time", "last_update_time"}),
)
