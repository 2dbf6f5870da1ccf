"""Which route a name means, and which of its deployments are asked in which order."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Mapping

from gateway.errors import Forbidden, UnknownModel
from gateway.health import Health
from gateway.owners import Key
from gateway.providers.faulty import Drawn, Faults
from gateway.routes import Config, Deployment, Route, Strategy
from gateway.types import Call, Provider

#: A sticky value that chooses nothing.
_ANYONE = ""


class Router:
    """Routes of one configuration, the providers that serve them, and how their deployments are doing."""

    def __init__(
        self, config: Config, providers: Mapping[str, Provider], health: Health, before: Router | None = None
    ) -> None:
        """`before` is the router that this one takes the place of."""
        self._routes = config.routes
        self._providers = providers
        self.health = health
        #: By route. Where a route's are the same in the file, they go on, attempt by attempt.
        self.faults = {name: Faults(route, route.fault) for name, route in config.routes.items() if route.fault}
        for name, faults in self.faults.items():
            if (kept := before and before.faults.get(name)) and kept.fault == faults.fault:
                self.faults[name] = kept

    def find(self, name: str, key: Key) -> Route:
        """The route called `name`. Raises `UnknownModel`, which names what `key` may call, or `Forbidden`."""
        route = self._routes.get(name)
        if route is None:
            raise UnknownModel(f"The model '{name[:100]}' does not exist here. {self._callable(key)}", param="model")
        if not key.may_call(name):
            raise Forbidden(f"This key may not call the model '{name}'. {self._callable(key)}", param="model")
        return route

    def behind(self, prompt: str, name: str) -> Route:
        """The route called `name`, which the version `prompt` is for: it needs no permission of the key."""
        route = self._routes.get(name)
        if route is None:
            raise UnknownModel(
                f"The prompt {prompt} is for the model '{name[:100]}', which is no route.", param="model"
            )
        return route

    def allowed(self, key: Key) -> list[Route]:
        """The routes `key` may call, in the file's order."""
        return [route for route in self._routes.values() if key.may_call(route.name)]

    def fallbacks(self, route: Route) -> list[Route]:
        """Where calls to `route` go when all its deployments failed. They need no permission of the key."""
        return [self._routes[name] for name in route.fallbacks]

    def larger(self, route: Route) -> list[Route]:
        """Where what is too long for `route` goes."""
        return [self._routes[name] for name in route.context_fallbacks]

    def order(self, route: Route, call: Call | None = None) -> list[Deployment]:
        """The route's deployments, each to be asked once: by order, within one as its strategy says."""
        deployments = [deployment for deployment in route.deployments if deployment.weight > 0]
        if len(deployments) < 2:
            return deployments
        sticky = _sticky(route, call)
        ranked = self._by_value(deployments, sticky) if sticky else _RANKS[route.strategy](self, deployments)
        return sorted(ranked, key=lambda one: one.order)

    def provider(self, deployment: Deployment) -> Provider:
        """Who serves `deployment`."""
        return self._providers[deployment.provider]

    def fault(self, route: Route) -> Drawn | None:
        """What is made to go wrong with the next attempt of a `route` that injects faults."""
        return self.faults[route.name].next() if route.fault else None

    def _weighted(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        # Efraimidis and Spirakis: sorting by an exponential of the weight draws in proportion to it.
        return sorted(deployments, key=lambda one: random.expovariate(one.weight))

    def _by_value(self, deployments: Iterable[Deployment], value: str) -> list[Deployment]:
        # Rendezvous hashing, weighted: the same draw for the same value, and few move when a deployment comes or goes.
        def draw(one: Deployment) -> float:
            digest = hashlib.blake2b(f"{value}\0{one.id}".encode(errors="replace"), digest_size=8).digest()
            return -math.log((int.from_bytes(digest) + 1) / (2**64 + 1)) / one.weight

        return sorted(deployments, key=draw)

    def _in_order(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        return list(deployments)

    def _by_latency(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        # The better of two drawn: everybody running to the one best would make it the worst.
        drawn = self._weighted(deployments)
        better = min(drawn[:2], key=self._delay)
        return [better, *sorted((one for one in drawn if one is not better), key=self._delay)]

    def _by_load(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        return sorted(
            self._weighted(deployments), key=lambda one: (self.health.of(one).running + 1) / (one.concurrency or 1)
        )

    def _by_price(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        return sorted(self._weighted(deployments), key=_price)

    def _delay(self, one: Deployment) -> float:
        condition = self.health.of(one)
        return condition.latency * (condition.running + 1)

    def _callable(self, key: Key) -> str:
        names = [route.name for route in self.allowed(key)]
        if not names:
            return "There is no model this key may call."
        return f"This key may call: {', '.join(names[:50])}" + (", …" if len(names) > 50 else ".")


_Rank = Callable[[Router, Iterable[Deployment]], list[Deployment]]
_RANKS: Mapping[Strategy, _Rank] = {
    Strategy.WEIGHTED: Router._weighted,
    Strategy.PRIORITY: Router._in_order,
    Strategy.LATENCY: Router._by_latency,
    Strategy.LEAST_BUSY: Router._by_load,
    Strategy.CHEAPEST: Router._by_price,
}


def _sticky(route: Route, call: Call | None) -> str:
    """What keeps this call at one deployment, nothing where nothing does. Two keys' users of one name are two."""
    if route.sticky is None or call is None:
        return _ANYONE
    request = call.request
    value = request.user
    if route.sticky != "user":
        value = request.given.get(route.sticky.lower().encode(), b"").decode("latin-1")
    return f"{call.key.id}\0{value}" if value else _ANYONE


def _price(one: Deployment) -> tuple[bool, float]:
    """USD for a token in and one out; what is unpriced comes last."""
    price = one.listing.price
    return (True, 0.0) if price is None else (False, float(price.rates.input + price.rates.output))
