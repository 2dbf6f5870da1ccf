"""SQL of registered models, their tags and aliases. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from promptlab.entities import Tag
from promptlab.entities_registry import IS_PROMPT, Alias, ModelVersion, RegisteredModel
from promptlab.store import model_versions as version_store
from promptlab.store.schema import beginning
from promptlab.store.schema_registry import model_aliases, registered_model_tags, registered_models
from promptlab.store.upsert import insert_new, insert_or_replace

# Rows of children are fetched for this many models at once: databases bound the length of an IN list.
_BATCH = 500
# Built once: building a statement costs more than SQLite's running it.
_BY_NAME = sa.select(registered_models).where(registered_models.c.name == sa.bindparam("wanted"))
_NUMBER = sa.select(registered_models.c.number).where(registered_models.c.name == sa.bindparam("wanted"))
_LOCKED = _NUMBER.with_for_update()
_TAGS, _ALIASES = (
    sa.select(table)
    .where(table.c.model.in_(sa.bindparam("models", expanding=True)))
    .order_by(table.c.model, table.c[key])
    for table, key in ((registered_model_tags, "key"), (model_aliases, "alias"))
)


def number(connection: sa.Connection, name: str) -> int | None:
    """The number of the model of that name."""
    found: int | None = connection.scalar(_NUMBER, {"wanted": name})
    return found


def lock(connection: sa.Connection, name: str) -> int | None:
    """The number of the model of that name, which nobody else changes until the transaction ends."""
    found: int | None = connection.scalar(_LOCKED, {"wanted": name})
    return found


def find(connection: sa.Connection, name: str) -> RegisteredModel | None:
    """The model with its tags, aliases and latest versions."""
    row = connection.execute(_BY_NAME, {"wanted": name}).first()
    return None if row is None else from_rows(connection, [row])[0]


def from_rows(connection: sa.Connection, rows: Sequence[sa.Row[tuple[object, ...]]]) -> list[RegisteredModel]:
    """The models of these rows of the table, with their tags, aliases and latest versions."""
    labels: dict[int, list[Tag]] = defaultdict(list)
    named: dict[int, list[Alias]] = defaultdict(list)
    latest: dict[int, list[ModelVersion]] = {}
    for start in range(0, len(rows), _BATCH):
        numbers = [row.number for row in rows[start : start + _BATCH]]
        for row in connection.execute(_TAGS, {"models": numbers}):
            labels[row.model].append(Tag(row.key, row.value))
        for row in connection.execute(_ALIASES, {"models": numbers}):
            named[row.model].append(Alias(row.alias, row.version))
        latest |= version_store.latest(connection, numbers)
    return [
        RegisteredModel(
            number=row.number,
            name=row.name,
            created=row.created,
            updated=row.updated,
            description=row.description,
            tags=tuple(labels[row.number]),
            aliases=tuple(named[row.number]),
            latest=tuple(latest.get(row.number, ())),
        )
        for row in rows
    ]


def insert(connection: sa.Connection, name: str, description: str | None, now: int) -> int | None:
    """The number of a new model, or None where the name is taken."""
    values = {"name": name, "description": description, "created": now, "updated": now}
    made: int | None = connection.scalar(
        insert_new(connection, registered_models).values(values).returning(registered_models.c.number)
    )
    return made


def update(connection: sa.Connection, number: int, **values: object) -> None:
    """Set columns of one model."""
    connection.execute(sa.update(registered_models).where(registered_models.c.number == number).values(**values))


def rename(connection: sa.Connection, number: int, name: str, now: int) -> bool:
    """Whether the name was free to take. When it was not, the transaction is spoilt and must be given up."""
    try:
        update(connection, number, name=name, updated=now)
    except sa.exc.IntegrityError:
        return False
    return True


def delete(connection: sa.Connection, number: int) -> None:
    """Remove the model and all that hangs below it."""
    connection.execute(sa.delete(registered_models).where(registered_models.c.number == number))


def set_tags(connection: sa.Connection, number: int, tags: Iterable[Tag]) -> None:
    """Set tags; of two with one key the later counts."""
    latest = {tag.key: tag.value for tag in tags}
    rows = [{"model": number, "key": key, "value": value} for key, value in latest.items()]
    insert_or_replace(connection, registered_model_tags, rows)


def delete_tag(connection: sa.Connection, number: int, key: str) -> None:
    """Remove a tag, if there is such a one."""
    mine = (registered_model_tags.c.model == number) & (registered_model_tags.c.key == key)
    connection.execute(sa.delete(registered_model_tags).where(mine))


def aliases(connection: sa.Connection, number: int) -> dict[str, int]:
    """The version that each alias of a model stands for."""
    return {row.alias: row.version for row in connection.execute(_ALIASES, {"models": [number]})}


def is_prompt(connection: sa.Connection, number: int) -> bool:
    """Whether a model is a prompt."""
    tags = registered_model_tags
    mine = (tags.c.model == number) & (tags.c.key == IS_PROMPT)
    return str(connection.scalar(sa.select(tags.c.value).where(mine)) or "").lower() == "true"


def aliases_of_prompts(connection: sa.Connection) -> dict[str, tuple[str, ...]]:
    """Every prompt with its aliases, by name."""
    tags = registered_model_tags
    is_prompt = (tags.c.key == IS_PROMPT) & (beginning(tags.c.value) == "true")
    query = (
        sa.select(registered_models.c.name, model_aliases.c.alias)
        .join(tags, tags.c.model == registered_models.c.number)
        .outerjoin(model_aliases, model_aliases.c.model == registered_models.c.number)
        .where(is_prompt)
    )
    found: dict[str, list[str]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.name] += [] if row.alias is None else [row.alias]
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def set_alias(connection: sa.Connection, number: int, alias: Alias) -> None:
    """Set or move an alias."""
    insert_or_replace(connection, model_aliases, [{"model": number, "alias": alias.alias, "version": alias.version}])


def delete_alias(connection: sa.Connection, number: int, alias: str) -> None:
    """Remove an alias, if there is such a one."""
    mine = (model_aliases.c.model == number) & (model_aliases.c.alias == alias)
    connection.execute(sa.delete(model_aliases).where(mine))


def delete_aliases_of(connection: sa.Connection, number: int, version: int) -> None:
    """Remove every alias of one version."""
    mine = (model_aliases.c.model == number) & (model_aliases.c.version == version)
    connection.execute(sa.delete(model_aliases).where(mine))
