"""Webhooks over HTTP."""

from __future__ import annotations

from typing import Any

from promptlab.api.wire import Arguments, Endpoints, Field, ListOf, integer, message, one_of, required, string
from promptlab.entities_webhooks import Event, Webhook, WebhookAction, WebhookEntity, WebhookStatus
from promptlab.lab import Lab

_EVENT = {"entity": required(one_of(WebhookEntity)), "action": required(one_of(WebhookAction))}
_ID = {"webhook_id": required(string)}
_FIELDS = {
    "name": Field(string),
    "description": Field(string),
    "url": Field(string),
    "events": Field(ListOf(message(_EVENT))),
    "secret": Field(string),
    "status": Field(one_of(WebhookStatus)),
}
_NEW = {
    **_FIELDS,
    "name": required(string),
    "url": required(string),
    "events": required(ListOf(message(_EVENT))),
}

served = Endpoints()


@served.post("webhooks", _NEW)
def create(lab: Lab, call: Arguments) -> Any:
    """A new webhook."""
    new = Webhook(
        number=0,
        id="",
        name=call["name"],
        url=call["url"],
        events=_events(call["events"]),
        created=0,
        updated=0,
        description=call["description"],
        status=call["status"] or WebhookStatus.ACTIVE,
    )
    return {"webhook": _message(lab.webhooks.create(new, call["secret"] or None))}


@served.get("webhooks", {"max_results": Field(integer, default=100), "page_token": Field(string)})
def list_all(lab: Lab, call: Arguments) -> Any:
    """One page of webhooks, and the token of the next page if there is one."""
    page = lab.webhooks.list_page(call["max_results"], call["page_token"])
    answer: dict[str, Any] = {"webhooks": [_message(one) for one in page.items]} if page.items else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


@served.get("webhooks/{webhook_id}", _ID)
def get(lab: Lab, call: Arguments) -> Any:
    """The webhook, without its secret."""
    return {"webhook": _message(lab.webhooks.get(call["webhook_id"]))}


@served.patch("webhooks/{webhook_id}", {**_ID, **_FIELDS})
def update(lab: Lab, call: Arguments) -> Any:
    """The webhook, changed in what was said."""
    changes = {name: call[name] for name in ("name", "url", "description", "status") if call[name] is not None}
    if call["events"]:
        changes["events"] = _events(call["events"])
    return {"webhook": _message(lab.webhooks.update(call["webhook_id"], changes, call["secret"]))}


@served.delete("webhooks/{webhook_id}", _ID)
def delete(lab: Lab, call: Arguments) -> Any:
    """Remove a webhook."""
    lab.webhooks.delete(call["webhook_id"])
    return {}


@served.post("webhooks/{webhook_id}/test", {**_ID, "event": Field(message(_EVENT))})
def test(lab: Lab, call: Arguments) -> Any:
    """How a message about an example was taken."""
    said = call["event"]
    sent = lab.webhooks.test(call["webhook_id"], None if said is None else Event(**said))
    if sent.wrong is not None:
        return {"result": {"success": False, "error_message": f"Failed to test webhook: {sent.wrong}"}}
    return {"result": {"success": sent.taken, "response_status": sent.status, "response_body": sent.body}}


def _events(said: list[dict[str, Any]]) -> tuple[Event, ...]:
    return tuple(Event(**one) for one in said)


def _message(found: Webhook) -> dict[str, Any]:
    shown = {
        "webhook_id": found.id,
        "name": found.name,
        "description": found.description,
        "url": found.url,
        "events": [{"entity": one.entity.name, "action": one.action.name} for one in found.events],
        "status": found.status.name,
        "creation_timestamp": found.created,
        "last_updated_timestamp": found.updated,
    }
    return {name: value for name, value in shown.items() if value is not None}
