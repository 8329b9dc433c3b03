"""Who may enter a server of several libraries, and which request goes to which of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from secondglance.errors import InputError
from secondglance.server.keys import KeyRing
from secondglance.server.options import MAKE_KEY, ServerOptions
from secondglance.server.security import LIBRARIES, Access, given_key

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Front(Access):
    """What decides about requests to the server itself, and who sees which library.

    Each key of a library is a key here. A session that begins here opens the libraries that its
    key opens.

    Args:
        options: Of the server.
        keys: Of each library, by its name; empty for one that wants none.

    Raises:
        InputError: Two keys have the same short name.
    """

    def __init__(self, options: ServerOptions, keys: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(options)
        every = dict.fromkeys(key for own in keys.values() for key in own)
        self.keys = KeyRing(every)
        if len(set(self.keys.names())) < len(every):
            # Sessions know a key by it. It happens to one in four billion pairs.
            raise InputError("two API keys look alike to the server", remedy=MAKE_KEY)
        self._rings = {name: KeyRing(own) for name, own in keys.items()}
        self.demands_key = all(self._rings.values())

    def visible(self, scope: Scope) -> list[str]:
        """Names of the libraries that a request may know of."""
        given = given_key(scope)
        shown = None if given is None else self.keys.find(given)
        known = {name for name in (shown, self.session(scope)) if name is not None}
        return [
            name
            for name, ring in self._rings.items()
            if not ring or any(ring.holds(key) for key in known)
        ]

    def tells_of_keys(self) -> bool:
        """Whether any library wants a key."""
        return bool(self.keys)

    def is_open(self, path: str) -> bool:
        """Whether a path answers without a key: also what leads to a library's page."""
        return super().is_open(path) or (path.startswith(f"{LIBRARIES}/") and path.count("/") == 2)

    def sees_all(self, scope: Scope) -> bool:
        """Whether a request may know of all libraries, and so of what belongs to the process."""
        return len(self.visible(scope)) == len(self._rings)


class Choose:
    """Sends requests below `/libraries/NAME/` to the application of that library.

    One that is not there looks to others like one that their key does not open.

    Args:
        app: Answers all else.
        libraries: Applications by name.
        nowhere: Refuses all keys.
        front: Who sees what.
    """

    def __init__(
        self, app: ASGIApp, *, libraries: Mapping[str, ASGIApp], nowhere: ASGIApp, front: Front
    ) -> None:
        self._app = app
        self._libraries = libraries
        self._nowhere = nowhere
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] in ("http", "websocket") and scope["path"].startswith(f"{LIBRARIES}/"):
            name, slash, _ = scope["path"][len(LIBRARIES) + 1 :].partition("/")
            if slash:
                found = self._libraries.get(name)
                if found is None and not self._front.sees_all(scope):
                    found = self._nowhere
                if found is not None:
                    inside = {**scope, "root_path": f"{LIBRARIES}/{name}"}
                    await found(inside, receive, send)
                    return
        await self._app(scope, receive, send)
