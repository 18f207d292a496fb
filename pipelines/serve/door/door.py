"""The door of a server: who may come in, and with which bodies."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.read_body import AnyBody, read_body
from pipelines.serve.door.access import check_access, check_content
from pipelines.serve.door.limits import NO_LIMITS, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What all models of a server share.

    `urgent_hashes`: of keys that may go before others; `admin_hashes`: that may change the server.
    """

    max_body_bytes: int
    limits: Limits = NO_LIMITS
    key_hashes: tuple[str, ...] = ()
    urgent_hashes: tuple[str, ...] = ()
    admin_hashes: tuple[str, ...] = ()

    def check(self, headers: Mapping[str, str]) -> str:
        """Who the client is. Raises ApiError (401, 403)."""
        return check_access(headers, self.key_hashes)

    async def read(self, request: Request, kind: type[AnyBody]) -> AnyBody:
        """The body of a client that may send one, and in `request.state` the client.

        Raises ApiError (400, 401, 403, 413, 415).
        """
        request.state.client = self.check(request.headers)
        check_content(request.headers)
        body = read_body(await self._bytes(request), kind)
        self._check_priority(getattr(body, "priority", 0), request.state.client)
        return body

    def _check_priority(self, priority: int, client: str) -> None:
        """Without keys, all clients are programs of one machine."""
        if priority < 0 and self.key_hashes and client not in self.urgent_hashes:
            told = f"priority={priority} is not accepted from this key: 0 or more"
            kind = "permission_error"
            raise ApiError(told, status=403, kind=kind, param="priority", code="forbidden")

    def check_admin(self, client: str) -> None:
        """Raise ApiError (403) unless the client may change the server."""
        if self.key_hashes and client not in self.admin_hashes:
            told = "this key may not change the server: its line in the file of keys lacks `admin`"
            raise ApiError(told, status=403, kind="permission_error", code="forbidden")

    async def _bytes(self, request: Request) -> bytes:
        most, data = self.max_body_bytes, bytearray()
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            raise _too_large(most)
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise _too_large(most)
        return bytes(data)


def _too_large(most: int) -> ApiError:
    return ApiError(f"the body is too large: {most} bytes are accepted", status=413)
