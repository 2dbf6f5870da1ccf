"""What the registry's two searches know of MLflow's grammar, and which of them ask for prompts."""

from __future__ import annotations

from collections.abc import Sequence

from promptlab.entities_registry import IS_PROMPT
from promptlab.filters import Clause, Entity, Grammar

_ENTITIES = {"attribute": Entity.ATTRIBUTE, "tag": Entity.TAG, "tags": Entity.TAG}

MODELS = Grammar(
    entities=_ENTITIES,
    names=tuple(_ENTITIES),
    entity_word="Valid entity types are",
    text_keys=frozenset({"name"}),
    number_keys=frozenset(),
    list_keys=frozenset({"name"}),
    presence=frozenset({Entity.TAG}),
    ordered=frozenset({Entity.ATTRIBUTE}),
    order_keys=frozenset({"name", "last_updated_timestamp"}),
    aliases={"timestamp": "last_updated_timestamp"},
)

VERSIONS = Grammar(
    entities=_ENTITIES,
    names=tuple(_ENTITIES),
    entity_word="Valid entity types are",
    text_keys=frozenset({"name", "run_id", "source_path"}),
    number_keys=frozenset({"version_number"}),
    list_keys=frozenset({"name", "run_id"}),
    presence=frozenset({Entity.TAG}),
    ordered=frozenset({Entity.ATTRIBUTE}),
    quoted_numbers=True,
    order_keys=frozenset({"name", "version_number", "creation_timestamp", "last_updated_timestamp"}),
)


def about_prompts(clauses: Sequence[Clause]) -> tuple[bool, list[Clause]]:
    """Whether a search is for prompts, and what else it asks for.

    Models and prompts are never found together: a search is for models unless its first clause about
    the tag `mlflow.prompt.is_prompt` wants it true. Models have no such tag, so a clause that wants it
    not to be true is no condition on them.
    """
    first = next((clause for clause in clauses if _is_about(clause)), None)
    wanted = first is not None and (first.comparator, str(first.value).lower()) in (("=", "true"), ("!=", "false"))
    return wanted, list(clauses) if wanted else [clause for clause in clauses if not _is_about(clause)]


def _is_about(clause: Clause) -> bool:
    return clause.entity is Entity.TAG and clause.key == IS_PROMPT
