"""Where the data plane has its prompts from: the registry, in the lab's words there and in the gateway's here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gateway.database import Database
from gateway.errors import BadRequest, GatewayError, UnknownModel
from gateway.prompts import Asked

if TYPE_CHECKING:
    from promptlab.prompts import Prompt, Prompts


class RegistryPrompts:
    """Reads the registry through a connection of this process's own, opened when a prompt is first asked for.

    Safe to use from many threads (`prompts.Source`).
    """

    def __init__(self, open_database: Callable[[], Database]) -> None:
        self._open = open_database
        self._opening = threading.Lock()
        self._database: Database | None = None
        self._prompts: Prompts | None = None

    def find(self, asked: Asked) -> RegisteredPrompt:
        """The version that is asked for (`prompts.Source`)."""
        from promptlab.errors import LabError

        try:
            return RegisteredPrompt(self._opened().find(asked.name, alias=asked.alias, version=asked.version))
        except LabError as error:
            if error.status == 404:
                raise UnknownModel(error.message, param="model") from None
            if error.status == 400:
                raise BadRequest(error.message, param="model", code="invalid_prompt") from None
            raise

    def aliases(self) -> Mapping[str, tuple[str, ...]]:
        """Every prompt with its aliases (`prompts.Source`)."""
        return self._opened().aliases()

    def close(self) -> None:
        """Let go of the database."""
        if self._database is not None:
            self._database.close()

    def _opened(self) -> Prompts:
        # Imported here: calls are answered before the lab's part is loaded, and most name no prompt.
        from promptlab.prompts import Prompts
        from promptlab.registry import Registry
        from promptlab.store import migrations

        with self._opening:
            if self._prompts is None:
                database = self._open()
                try:
                    # The tracking server may not have made the tables yet.
                    migrations.migrate(database)
                except BaseException:
                    database.close()
                    raise
                self._database = database
                self._prompts = Prompts(Registry(database))
            return self._prompts


class RegisteredPrompt:
    """One version of a prompt (`prompts.Prompt`)."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self.name = prompt.name
        self.version = prompt.version
        self.config = prompt.config
        self.response_format = prompt.response_format
        self.slow = prompt.template.is_jinja

    def messages(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Its messages with `values` in it (`prompts.Prompt`)."""
        from promptlab.prompt_template import TemplateFailed
        from promptlab.templates import VariablesMismatch

        try:
            return self._prompt.messages(values)
        except VariablesMismatch as error:
            raise self._refused(str(error)) from None
        except TemplateFailed as error:
            raise self._refused(str(error)) from None

    def _refused(self, why: str) -> GatewayError:
        asks = ", ".join(f"'{name}'" for name in self._prompt.template.variables) or "no variables"
        return BadRequest(
            f"{why} Version {self.version} of the prompt '{self.name}' asks for {asks}.",
            param="variables",
            code="invalid_variables",
        )
