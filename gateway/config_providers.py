"""What each entry under `providers:` needs beyond its keys' types, and which routes may be `byok`."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import strict
from gateway.config_yaml import mapping
from gateway.providers.rows import Row, find

_Complaint = tuple[strict.Path, str]


def check(data: Any, folder: Path) -> Iterator[_Complaint]:
    """Problems of providers and of `byok` routes, in data that may be wrong elsewhere. Paths are beside `folder`."""
    providers, routes = mapping(mapping(data).get("providers")), mapping(mapping(data).get("routes"))
    for name, provider in providers.items():
        row = _row(provider)
        if row is not None and row.litellm is None:
            for place, message in _check_row(row, provider, folder):
                yield ("providers", name, *place), message
    for name, route in routes.items():
        if mapping(route).get("byok") is True:
            for place, message in _check_byok(route, providers):
                yield ("routes", name, *place), message


def place(folder: Path, name: str) -> Path:
    """Where the file called `name` in a configuration in `folder` is."""
    return folder / Path(name).expanduser()


def digest(bundle: Path) -> str:
    """What tells the certificates in a file from others; none for a file that is gone again."""
    try:
        return hashlib.sha256(bundle.read_bytes()).hexdigest()[:12]
    except OSError:
        return ""


def bundles(data: Any, folder: Path) -> list[Path]:
    """The files of certificates that a configuration in `folder` names, as far as it can be understood."""
    named = [mapping(one).get("ca_bundle") for one in mapping(mapping(data).get("providers")).values()]
    return [place(folder, name) for name in named if isinstance(name, str) and name]


def _check_row(row: Row, provider: Mapping[str, Any], folder: Path) -> Iterator[_Complaint]:
    if row.base_url is None and "base_url" not in provider:
        yield ("base_url",), f"is missing. For example: {row.example_url}"
    if "api_key" in provider and "api_keys" in provider:
        yield ("api_keys",), "stands beside api_key. Keep one of them."
    if not row.keyless and "api_key" not in provider and "api_keys" not in provider:
        yield ("api_key",), f'is missing. For example: "${{{row.name.upper()}_API_KEY}}"'
    if row.api_version and "api_version" not in provider:
        yield ("api_version",), "is missing. For example: 2024-10-21"
    elif "api_version" in provider and not row.api_version:
        yield ("api_version",), f"means nothing to {row.name}, whose addresses have no version. Remove it."
    bundle = provider.get("ca_bundle")
    if isinstance(bundle, str) and bundle and (problem := _problem(place(folder, bundle))):
        yield ("ca_bundle",), problem


def _problem(bundle: Path) -> str | None:
    """Why `bundle` cannot be trusted, if it cannot."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
    except ssl.SSLError:
        return f"holds no certificate: {strict.shown(str(bundle))}. It must be in PEM, as -----BEGIN CERTIFICATE-----."
    except OSError as error:
        return f"cannot read the file {strict.shown(str(bundle))}: {error.strerror}."
    return None


def _check_byok(route: Any, providers: Mapping[str, Any]) -> Iterator[_Complaint]:
    """A caller's credential is for one provider, and may be sent to no other."""
    deployments = mapping(route).get("deployments")
    first: str | None = None
    for index, one in enumerate(deployments if isinstance(deployments, list) else ()):
        name = mapping(one).get("provider")
        if not isinstance(name, str) or name not in providers:
            continue
        row = _row(providers[name])
        if row is None or row.litellm is not None:
            yield ("byok",), f"'{name}' cannot be called with a caller's credential. Remove byok, or name another."
            return
        if first is not None and name != first:
            where = ("deployments", index, "provider")
            yield (
                where,
                f"a caller's credential for '{first}' would go to '{name}' too. Give it a route of its own.",
            )
        first = first or name


def _row(provider: Any) -> Row | None:
    kind = mapping(provider).get("type")
    return find(kind) if isinstance(kind, str) else None
