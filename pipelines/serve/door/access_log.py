"""A line in the log for each HTTP request: at level info, or debug where machines ask often."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)
REQUEST_HEADER = "x-request-id"  # of answers
PROBED = ("/health", "/healthz", "/readyz", "/metrics")  # every few seconds, by machines


class AccessLog:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        level = logging.DEBUG if scope.get("path") in PROBED else logging.INFO
        if scope["type"] != "http" or not log.isEnabledFor(level):
            await self._app(scope, receive, send)
            return
        began, facts, sent = time.perf_counter(), dict[str, object](), False

        async def noting(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
                for name, value in message["headers"]:
                    if name == REQUEST_HEADER.encode():
                        facts["request"] = value.decode("latin-1")
            elif not message.get("more_body"):
                sent = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:  # answered with a 500 by what is around this
            facts["status"], sent = 500, True
            raise
        finally:
            facts["seconds"] = round(time.perf_counter() - began, 4)
            facts["client"] = str(scope.get("state", {}).get("client", ""))[:8] or "-"
            cut = "" if sent else ", which its client did not wait for"
            log.log(level, "%s %s%s", scope["method"], scope["path"][:200], cut, extra=facts)
