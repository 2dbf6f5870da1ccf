"""What the searches of runs and of experiments know of MLflow's grammar."""

from __future__ import annotations

from promptlab.filters import Entity, Grammar

RUNS = Grammar(
    entities={
        **dict.fromkeys(("metric", "metrics"), Entity.METRIC),
        **dict.fromkeys(("parameter", "parameters", "param", "params"), Entity.PARAM),
        **dict.fromkeys(("tag", "tags"), Entity.TAG),
        **dict.fromkeys(("attribute", "attributes", "attr", "run"), Entity.ATTRIBUTE),
        **dict.fromkeys(("dataset", "datasets"), Entity.DATASET),
    },
    names=["metric", "parameter", "tag", "attribute", "dataset"],
    entity_word="Valid values are",
    text_keys=frozenset({"artifact_uri", "run_id", "run_name", "status", "user_id"}),
    number_keys=frozenset({"start_time", "end_time"}),
    list_keys=frozenset({"run_id"}),
    presence=frozenset({Entity.TAG, Entity.PARAM}),
    ordered=frozenset({Entity.METRIC, Entity.PARAM, Entity.TAG, Entity.ATTRIBUTE}),
    aliases={
        **dict.fromkeys(("created", "Created"), "start_time"),
        **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name"),
    },
)

EXPERIMENTS = Grammar(
    entities={
        **dict.fromkeys(("attribute", "attributes", "attr", "experiment"), Entity.ATTRIBUTE),
        **dict.fromkeys(("tag", "tags"), Entity.TAG),
    },
    names=("attribute", "tag", "tags"),
    entity_word="Valid entity types are",
    text_keys=frozenset({"name", "experiment_id"}),
    number_keys=frozenset({"creation_time", "last_update_time"}),
    list_keys=frozenset({"experiment_id"}),
    presence=frozenset({Entity.TAG}),
    ordered=frozenset({Entity.ATTRIBUTE}),
)
