"""Which route a name means, and which of its deployments are tried in which order."""

from __future__ import annotations

import random
from collections.abc import Mapping

from gateway.errors import Forbidden, UnknownModel
from gateway.routes import Config, Deployment, Route
from gateway.types import Key, Provider


class Router:
    """Routes of one configuration and the providers that serve them."""

    def __init__(self, config: Config, providers: Mapping[str, Provider]) -> None:
        self._routes = config.routes
        self._providers = providers

    def find(self, name: str, key: Key) -> Route:
        """The route called `name`. Raises `UnknownModel`, which names what `key` may call, or `Forbidden`."""
        route = self._routes.get(name)
        if route is None:
            raise UnknownModel(f"The model '{name[:100]}' does not exist here. {self._callable(key)}", param="model")
        if not key.may_call(name):
            raise Forbidden(f"This key may not call the model '{name}'. {self._callable(key)}", param="model")
        return route

    def allowed(self, key: Key) -> list[Route]:
        """The routes `key` may call, in the file's order."""
        return [route for route in self._routes.values() if key.may_call(route.name)]

    def fallbacks(self, route: Route) -> list[Route]:
        """Where calls to `route` go when all its deployments failed. They need no permission of the key."""
        return [self._routes[name] for name in route.fallbacks]

    def order(self, route: Route) -> list[Deployment]:
        """The route's deployments, each to be tried once: drawn by weight, without replacement."""
        deployments = [deployment for deployment in route.deployments if deployment.weight > 0]
        if len(deployments) < 2:
            return deployments
        # Efraimidis and Spirakis: sorting by an exponential of the weight draws in proportion to it.
        return sorted(deployments, key=lambda one: random.expovariate(one.weight))

    def provider(self, deployment: Deployment) -> Provider:
        """Who serves `deployment`."""
        return self._providers[deployment.provider]

    def _callable(self, key: Key) -> str:
        names = [route.name for route in self.allowed(key)]
        if not names:
            return "There is no model this key may call."
        return f"This key may call: {', '.join(names[:50])}" + (", …" if len(names) > 50 else ".")
