"""One provider object for each entry under `providers:`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.providers import rows
from gateway.providers.http import HttpProvider
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec
from gateway.types import Provider

if TYPE_CHECKING:
    from gateway.providers.embedded import Lent


def make(spec: ProviderSpec, transport: Transport, lent: Lent | None = None) -> Provider:
    """The provider that `spec` describes, not started. Each class is imported only where it is configured.

    With `lent`, embedded models are those of another process.
    """
    row = rows.find(spec.type)
    if row is not None and row.litellm is None:
        return HttpProvider(row, spec, transport)
    match spec.type:
        case "embedded":
            from gateway.providers.embedded import BorrowedProvider, EmbeddedProvider

            return EmbeddedProvider(spec, transport) if lent is None else BorrowedProvider(spec, transport, lent)
        case "fake":
            from gateway.providers.fake import FakeProvider

            return FakeProvider(spec)
        case _:
            from gateway.providers.litellm import LiteLLMProvider

            return LiteLLMProvider(spec, row.litellm if row else None)
