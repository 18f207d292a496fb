"""Errors as OpenAI's clients read them: a status and {"error": {message, type, param, code}}."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

INVALID = "invalid_request_error"


class ApiError(Exception):
    """An answer that is an error. `param`: the field of the body that it is about."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.status, self._retry_after_s = status, retry_after_s
        self._told = {"message": message, "type": kind, "param": param, "code": code}

    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        return {"error": self._told}

    def rename(self, names: Mapping[str, str]) -> None:
        """Tell of fields by other names."""
        for name, other in names.items():
            self._told["message"] = re.sub(rf"\b{name}\b", other, str(self._told["message"]))
        self._told["param"] = self.param = names.get(str(self.param), self.param)

    def headers(self) -> dict[str, str]:
        """Whether a client should try again: only where the reason may pass."""
        if self._retry_after_s is None:
            return {"x-should-retry": "false"}
        return {"x-should-retry": "true", "retry-after": str(self._retry_after_s)}


@contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Errors that come of this name fields otherwise."""
    try:
        yield
    except ApiError as error:
        error.rename(names)
        raise


def too_late(seconds: float) -> ApiError:
    """The request took longer than the server allows."""
    told = f"the request was not complete after {seconds:g} s, and was stopped"
    return ApiError(told, status=504, kind="server_error", code="deadline_exceeded")


def overloaded(reason: str = "the server's queue is full") -> ApiError:
    """The queue is full, or the client has its share."""
    told = f"{reason}; try again later"
    return ApiError(told, status=429, kind="rate_limit_error", code="queue_full", retry_after_s=1)


def unavailable(reason: str) -> ApiError:
    """No target can run requests now."""
    told = f"the model cannot be reached: {reason}"
    return ApiError(told, status=503, kind="server_error", code="unavailable", retry_after_s=5)


def failed(reason: str) -> ApiError:
    """A request that ended with an error on its target."""
    return ApiError(reason, status=500, kind="server_error", code="generation_failed")
