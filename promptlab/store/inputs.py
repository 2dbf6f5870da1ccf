"""SQL of what runs read and made: datasets, and the ids of logged models. Runs in its caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from promptlab.entities import DATASET_CONTEXT, Dataset, DatasetInput, Inputs, ModelOutput, RunInfo, Tag
from promptlab.store.schema_inputs import datasets, run_dataset_tags, run_datasets, run_models
from promptlab.store.upsert import insert_missing, insert_new

_BATCH = 500
# Built once: building a statement costs more than SQLite's running it.
_RUNS: sa.BindParameter[Any] = sa.bindparam("runs", expanding=True)
_DATASETS = (
    sa.select(datasets, run_datasets.c.run)
    .join(run_datasets, run_datasets.c.dataset == datasets.c.number)
    .where(run_datasets.c.run.in_(_RUNS))
    .order_by(run_datasets.c.run, datasets.c.number)
)
_TAGS = (
    sa.select(run_dataset_tags)
    .where(run_dataset_tags.c.run.in_(_RUNS))
    .order_by(run_dataset_tags.c.run, run_dataset_tags.c.dataset, run_dataset_tags.c.key)
)
_MODELS = (
    sa.select(run_models)
    .where(run_models.c.run.in_(_RUNS))
    .order_by(run_models.c.run, run_models.c.step, run_models.c.model_id)
)


class Summary(NamedTuple):
    """A dataset that runs of an experiment read, and one of the contexts they read it in; None for no context."""

    experiment_id: int
    name: str
    digest: str
    context: str | None


def of_runs(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, Inputs]:
    """What these runs read and made; runs that did neither are left out."""
    read: dict[int, dict[int, Dataset]] = defaultdict(dict)
    tags: dict[tuple[int, int], list[Tag]] = defaultdict(list)
    models: dict[int, list[sa.Row[Any]]] = defaultdict(list)
    for row in connection.execute(_DATASETS, {"runs": numbers}):
        read[row.run][row.number] = Dataset(row.name, row.digest, row.source_type, row.source, row.schema, row.profile)
    if read:
        for row in connection.execute(_TAGS, {"runs": numbers}):
            tags[row.run, row.dataset].append(Tag(row.key, row.value))
    for row in connection.execute(_MODELS, {"runs": numbers}):
        models[row.run].append(row)
    return {
        run: Inputs(
            datasets=tuple(DatasetInput(one, tuple(tags[run, number])) for number, one in read[run].items()),
            models=tuple(row.model_id for row in models[run] if not row.output),
            outputs=tuple(ModelOutput(row.model_id, row.step) for row in models[run] if row.output),
        )
        for run in read.keys() | models.keys()
    }


def log_datasets(connection: sa.Connection, run: RunInfo, inputs: Iterable[DatasetInput]) -> None:
    """Add datasets to what the run read. One that it read already keeps its tags; of two alike the first counts."""
    new: dict[tuple[str, str], DatasetInput] = {}
    for one in inputs:
        new.setdefault((one.dataset.name, one.dataset.digest), one)
    insert_missing(connection, datasets, [_row(run, one.dataset) for one in new.values()])
    for key, number in _numbers(connection, run, list(new)).items():
        link = insert_new(connection, run_datasets).values(run=run.number, dataset=number)
        if connection.scalar(link.returning(run_datasets.c.run)) is not None:
            tags = {tag.key: tag.value for tag in new[key].tags}
            rows = [{"run": run.number, "dataset": number, "key": k, "value": v} for k, v in tags.items()]
            insert_missing(connection, run_dataset_tags, rows)


def _row(run: RunInfo, dataset: Dataset) -> dict[str, Any]:
    return {
        "experiment": run.experiment_id,
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
        "schema": dataset.schema,
        "profile": dataset.profile,
    }


def _numbers(connection: sa.Connection, run: RunInfo, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for start in range(0, len(keys), _BATCH):
        named = sa.tuple_(datasets.c.name, datasets.c.digest).in_(keys[start : start + _BATCH])
        query = sa.select(datasets.c.name, datasets.c.digest, datasets.c.number)
        query = query.where(datasets.c.experiment == run.experiment_id, named).order_by(datasets.c.number)
        found |= {(row.name, row.digest): row.number for row in connection.execute(query)}
    return found


def log_models(connection: sa.Connection, run: int, models: Iterable[ModelOutput], *, output: bool) -> None:
    """Add to the logged models that a run read or, with `output`, made; one that is there stays as it is."""
    rows = [{"run": run, "output": output, "model_id": one.model_id, "step": one.step} for one in models]
    insert_missing(connection, run_models, rows)


def summaries(connection: sa.Connection, experiments: Sequence[int], limit: int) -> list[Summary]:
    """At most `limit` of the datasets that runs of these experiments read, each once for every context."""
    same = (run_dataset_tags.c.run == run_datasets.c.run) & (run_dataset_tags.c.dataset == run_datasets.c.dataset)
    query = (
        sa.select(datasets.c.experiment, datasets.c.name, datasets.c.digest, run_dataset_tags.c.value)
        .distinct()
        .select_from(datasets)
        .join(run_datasets, run_datasets.c.dataset == datasets.c.number)
        .outerjoin(run_dataset_tags, same & (run_dataset_tags.c.key == DATASET_CONTEXT))
        .where(datasets.c.experiment.in_(experiments))
        .order_by(datasets.c.experiment, datasets.c.name, datasets.c.digest, run_dataset_tags.c.value)
        .limit(limit)
    )
    return [Summary(*row) for row in connection.execute(query)]
