"""The rules of the model registry: names, versions, stages and aliases. One transaction a call.

A prompt is a registered model with the tag `mlflow.prompt.is_prompt`; all that is done to models is done
to prompts. What only prompts have is in `promptlab.prompts`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from promptlab import existing_registry, filters, filters_registry, limits, limits_registry, logged_models
from promptlab.entities import Page, Tag
from promptlab.entities_registry import STAGES, Alias, ModelVersion, NewVersion, RegisteredModel, says_prompt
from promptlab.errors import AlreadyExists, InvalidParameter
from promptlab.ports import Database
from promptlab.registry_events import Change, tell_of
from promptlab.registry_origin import origin_of
from promptlab.store import Connection, model_versions, registered_models, search_registry

T = TypeVar("T")

MAX_MODELS = 1000
MAX_VERSIONS = 200_000


class Registry:
    """Registered models and their versions. Safe to call from many threads; each call is atomic and durable."""

    def __init__(self, database: Database) -> None:
        """The tables are there already: `Lab` sees to it."""
        self._database = database

    # ── registered models ────────────────────────────────────────────────────────────────────────

    def create_model(self, name: str, description: str | None, tags: Sequence[Tag]) -> RegisteredModel:
        """A new model, or prompt where its tags say so; a name is either's, never both's."""
        limits_registry.check_name(name)
        limits_registry.check_length("description", limits_registry.MAX_DESCRIPTION, description)
        for tag in tags:
            limits_registry.check_tag(tag)

        def work(connection: Connection) -> RegisteredModel:
            number = registered_models.insert(connection, name, description, _now())
            if number is None:
                raise existing_registry.name_taken(connection, name, tags)
            registered_models.set_tags(connection, number, tags)
            told = {"name": name, "tags": {tag.key: tag.value for tag in tags}, "description": description}
            tell_of(connection, Change.MODEL, number, told)
            return existing_registry.model(connection, name)

        return self._database.write(work)

    def model(self, name: str) -> RegisteredModel:
        """The model of that name."""
        limits_registry.check_name(name)
        with self._database.read() as connection:
            return existing_registry.model(connection, name)

    def update_model(self, name: str, description: str) -> RegisteredModel:
        """The model, described anew."""
        limits_registry.check_length("description", limits_registry.MAX_DESCRIPTION, description)

        def work(connection: Connection, number: int) -> RegisteredModel:
            registered_models.update(connection, number, description=description, updated=_now())
            return existing_registry.model(connection, name)

        return self._write(name, work)

    def rename_model(self, name: str, new_name: str) -> RegisteredModel:
        """The model under another name, with its versions, tags and aliases."""
        limits_registry.check_name(new_name, "new_name")

        def work(connection: Connection, number: int) -> RegisteredModel:
            now = _now()
            if not registered_models.rename(connection, number, new_name, now):
                raise AlreadyExists(f"Registered Model (name={new_name}) already exists.")
            model_versions.update_all_of(connection, number, updated=now)
            return existing_registry.model(connection, new_name)

        return self._write(name, work)

    def delete_model(self, name: str) -> None:
        """Remove the model with all its versions; the name is free again."""
        self._write(name, registered_models.delete)

    def search_models(self, text: str, order_by: Sequence[str], limit: int, token: str | None) -> Page[RegisteredModel]:
        """A page of the models for which the filter holds; of prompts, where it asks for them."""
        _check_page_size(limit, MAX_MODELS)
        prompts, clauses = filters_registry.about_prompts(filters.parse_filter(text, filters_registry.MODELS))
        orders = filters.parse_order_by(order_by, filters_registry.MODELS)
        with self._database.read() as connection:
            return search_registry.search_models(connection, clauses, orders, limit, token, prompts=prompts)

    def set_model_tag(self, name: str, tag: Tag) -> None:
        """Set or change a tag of the model."""
        limits_registry.check_tag(tag)

        def work(connection: Connection, number: int) -> None:
            registered_models.set_tags(connection, number, [tag])
            tell_of(connection, Change.TAG_SET, number, {"name": name, "key": tag.key, "value": tag.value})

        self._write(name, work)

    def delete_model_tag(self, name: str, key: str) -> None:
        """Take a tag from the model, if it has it."""
        limits.check_key(key, "key")

        def work(connection: Connection, number: int) -> None:
            registered_models.delete_tag(connection, number, key)
            tell_of(connection, Change.TAG_DELETED, number, {"name": name, "key": key})

        self._write(name, work)

    # ── versions ─────────────────────────────────────────────────────────────────────────────────

    def create_version(self, new: NewVersion) -> ModelVersion:
        """The next version of a model, ready at once. Its number was no other version's of that model."""
        for tag in new.tags:
            limits_registry.check_tag(tag)
        limits_registry.check_length("description", limits_registry.MAX_DESCRIPTION, new.description)
        limits_registry.check_length("source", limits_registry.MAX_SOURCE, new.source)
        limits_registry.check_length("run_link", limits_registry.MAX_SOURCE, new.run_link)
        limits_registry.check_length("run_id", limits_registry.MAX_RUN_ID, new.run_id)

        def work(connection: Connection, number: int) -> ModelVersion:
            origin = origin_of(connection, new)
            now = _now()
            version = ModelVersion(
                number=0,
                name=new.name,
                version=model_versions.next_number(connection, number),
                created=now,
                updated=now,
                stage=STAGES[0],
                description=new.description,
                source=origin.source,
                location=origin.location,
                run_id=origin.run_id,
                run_link=new.run_link,
                tags=new.tags,
            )
            model_versions.insert(connection, number, version)
            if new.model_id and not says_prompt(new.tags):
                logged_models.note_version(connection, new.model_id, new.name, version.version)
            registered_models.update(connection, number, updated=now)
            told = {
                "name": new.name,
                "version": str(version.version),
                "source": new.source,
                "run_id": new.run_id or None,
                "tags": {tag.key: tag.value for tag in new.tags},
                "description": new.description or None,
            }
            tell_of(connection, Change.VERSION, number, told)
            return existing_registry.version(connection, new.name, version.version)

        return self._write(new.name, work)

    def version(self, name: str, version: str) -> ModelVersion:
        """That version of a model, with its aliases."""
        limits_registry.check_name(name)
        wanted = limits_registry.parse_version(version)
        with self._database.read() as connection:
            return existing_registry.version(connection, name, wanted)

    def update_version(self, name: str, version: str, description: str | None) -> ModelVersion:
        """The version, described anew."""
        limits_registry.check_length("description", limits_registry.MAX_DESCRIPTION, description)

        def work(connection: Connection, number: int, found: ModelVersion) -> ModelVersion:
            model_versions.update(connection, found.number, description=description, updated=_now())
            return existing_registry.version(connection, name, found.version)

        return self._write_version(name, version, work)

    def transition_version(self, name: str, version: str, stage: str, *, archive: bool) -> ModelVersion:
        """The version in another stage; with `archive` those that were there leave it."""
        wanted = limits_registry.parse_stage(stage)
        if archive:
            limits_registry.check_archiving(stage)

        def work(connection: Connection, number: int, found: ModelVersion) -> ModelVersion:
            now = _now()
            if archive:
                model_versions.archive_others(connection, number, found.version, wanted, now)
            model_versions.update(connection, found.number, stage=wanted, updated=now)
            registered_models.update(connection, number, updated=now)
            return existing_registry.version(connection, name, found.version)

        return self._write_version(name, version, work)

    def delete_version(self, name: str, version: str) -> None:
        """Remove the version and its aliases; its number is not given out again."""

        def work(connection: Connection, number: int, found: ModelVersion) -> None:
            now = _now()
            registered_models.delete_aliases_of(connection, number, found.version)
            model_versions.redact(connection, found.number, now)
            registered_models.update(connection, number, updated=now)

        self._write_version(name, version, work)

    def latest_versions(self, name: str, stages: Sequence[str]) -> list[ModelVersion]:
        """The highest version of each of these stages, or of every stage."""
        wanted = {limits_registry.parse_stage(stage) for stage in stages or STAGES}
        found = self.model(name)
        return [
            replace(version, aliases=tuple(one.alias for one in found.aliases if one.version == version.version))
            for version in found.latest
            if version.stage in wanted
        ]

    def location(self, name: str, version: str) -> str:
        """Where the files of a version are."""
        return self.version(name, version).location

    def search_versions(self, text: str, order_by: Sequence[str], limit: int, token: str | None) -> Page[ModelVersion]:
        """A page of the versions for which the filter holds; of prompts, where it asks for them."""
        _check_page_size(limit, MAX_VERSIONS)
        prompts, clauses = filters_registry.about_prompts(filters.parse_filter(text, filters_registry.VERSIONS))
        orders = filters.parse_order_by(order_by, filters_registry.VERSIONS)
        with self._database.read() as connection:
            return search_registry.search_versions(connection, clauses, orders, limit, token, prompts=prompts)

    def set_version_tag(self, name: str, version: str, tag: Tag) -> None:
        """Set or change a tag of the version."""
        limits_registry.check_tag(tag)

        def work(connection: Connection, number: int, found: ModelVersion) -> None:
            model_versions.set_tags(connection, found.number, [tag])
            told = {"name": name, "version": version, "key": tag.key, "value": tag.value}
            tell_of(connection, Change.VERSION_TAG_SET, number, told)

        self._write_version(name, version, work)

    def delete_version_tag(self, name: str, version: str, key: str) -> None:
        """Take a tag from the version, if it has it."""
        limits.check_key(key, "key")

        def work(connection: Connection, number: int, found: ModelVersion) -> None:
            model_versions.delete_tag(connection, found.number, key)
            tell_of(connection, Change.VERSION_TAG_DELETED, number, {"name": name, "version": version, "key": key})

        self._write_version(name, version, work)

    # ── aliases ──────────────────────────────────────────────────────────────────────────────────

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let the alias stand for that version from now on."""
        limits_registry.check_alias(alias, new=True)

        def work(connection: Connection, number: int, found: ModelVersion) -> None:
            registered_models.set_alias(connection, number, Alias(alias, found.version))
            tell_of(connection, Change.ALIAS_SET, number, {"name": name, "alias": alias, "version": version})

        self._write_version(name, version, work)

    def delete_alias(self, name: str, alias: str) -> None:
        """Take the alias from the model, if it has it."""
        limits_registry.check_alias(alias, new=False)

        def work(connection: Connection, number: int) -> None:
            registered_models.delete_alias(connection, number, alias)
            tell_of(connection, Change.ALIAS_DELETED, number, {"name": name, "alias": alias})

        self._write(name, work)

    def version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that the alias stands for; `latest` stands for the highest."""
        limits_registry.check_name(name)
        limits_registry.check_alias(alias, new=False)
        with self._database.read() as connection:
            return existing_registry.version_by_alias(connection, name, alias)

    def prompt_aliases(self) -> dict[str, tuple[str, ...]]:
        """Every prompt with its aliases, by name; nothing of what they say."""
        with self._database.read() as connection:
            return registered_models.aliases_of_prompts(connection)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def _write(self, name: str, work: Callable[[Connection, int], T]) -> T:
        limits_registry.check_name(name)

        return self._database.write(lambda connection: work(connection, existing_registry.own_model(connection, name)))

    def _write_version(self, name: str, version: str, work: Callable[[Connection, int, ModelVersion], T]) -> T:
        limits_registry.check_name(name)
        wanted = limits_registry.parse_version(version)
        return self._database.write(
            lambda connection: work(connection, *existing_registry.own_version(connection, name, wanted))
        )


def _now() -> int:
    return time.time_ns() // 1_000_000


def _check_page_size(limit: int, most: int) -> None:
    if limit > most:
        raise InvalidParameter(
            f"Invalid value for request parameter max_results. It must be at most {most}, but got value {limit}"
        )
    if limit < 1:
        raise InvalidParameter(f"Invalid value for max_results. It must be a positive integer, but got {limit}")
