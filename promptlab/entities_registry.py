"""The registry's words: registered models, their versions and aliases. A prompt is a registered model with a tag."""

from __future__ import annotations

from dataclasses import dataclass

from promptlab.entities import Tag

# What makes a registered model a prompt, and where a version keeps what. MLflow's client writes them:
# https://github.com/mlflow/mlflow/blob/master/mlflow/prompt/constants.py
IS_PROMPT = "mlflow.prompt.is_prompt"
PROMPT_TEXT = "mlflow.prompt.text"
PROMPT_TYPE = "_mlflow_prompt_type"
PROMPT_RESPONSE_FORMAT = "_mlflow_prompt_response_format"
PROMPT_MODEL_CONFIG = "_mlflow_prompt_model_config"
CHAT = "chat"

# The alias that every registered model has: its highest version.
LATEST = "latest"

STAGES = ("None", "Staging", "Production", "Archived")
ACTIVE_STAGES = ("Staging", "Production")


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for one version, which may be moved to another."""

    alias: str
    version: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model. `number` is the store's own key, `version` counts from 1 in each model.

    `source` is what its maker said, `location` where its files are. `aliases` are filled in
    where MLflow's server tells them: not in searches, nor below a registered model.
    """

    number: int
    name: str
    version: int
    created: int
    updated: int
    stage: str
    description: str | None
    source: str
    location: str
    run_id: str
    run_link: str
    tags: tuple[Tag, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """What groups versions under a name. `latest` holds the highest version of each stage."""

    number: int
    name: str
    created: int
    updated: int
    description: str | None
    tags: tuple[Tag, ...] = ()
    aliases: tuple[Alias, ...] = ()
    latest: tuple[ModelVersion, ...] = ()


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What the maker of a version says. `run_id` and `model_id` are None where it says nothing about them."""

    name: str
    source: str
    run_id: str | None = None
    model_id: str | None = None
    run_link: str = ""
    description: str | None = None
    tags: tuple[Tag, ...] = ()


def says_prompt(tags: tuple[Tag, ...] | list[Tag]) -> bool:
    """Whether these tags make a prompt of what they are on; of two with one key the later counts."""
    return {tag.key: tag.value for tag in tags}.get(IS_PROMPT, "false").lower() == "true"
