"""One provider object for each entry under `providers:`."""

from __future__ import annotations

from gateway.providers import rows
from gateway.providers.http import HttpProvider
from gateway.providers.transport import Transport
from gateway.routes import ProviderSpec
from gateway.types import Provider


def make(spec: ProviderSpec, transport: Transport) -> Provider:
    """The provider that `spec` describes, not started. Each class is imported only where it is configured."""
    row = rows.find(spec.type)
    if row is not None and row.litellm is None:
        return HttpProvider(row, spec, transport)
    match spec.type:
        case "embedded":
            from gateway.providers.embedded import EmbeddedProvider

            return EmbeddedProvider(spec, transport)
        case "fake":
            from gateway.providers.fake import FakeProvider

            return FakeProvider(spec)
        case _:
            from gateway.providers.litellm import LiteLLMProvider

            return LiteLLMProvider(spec, row.litellm if row else None)
