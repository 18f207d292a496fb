"""Errors as replies, in the form of the interface that was asked."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.serve.answers.messages import anthropic_error
from pipelines.serve.api_error import ApiError
from pipelines.serve.generation.exchange import ClientLeft

CLIENT_LEFT = 499  # as nginx logs it


def add_error_replies(app: FastAPI) -> None:
    """Every error of an app is a reply that its clients can read."""
    app.add_exception_handler(ApiError, _told)
    app.add_exception_handler(HTTPException, _not_found)
    for gone in (ClientDisconnect, ClientLeft):
        app.add_exception_handler(gone, _gone)
    app.add_exception_handler(Exception, _broken)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    anthropic = request.url.path.startswith("/v1/messages")
    body = anthropic_error(error) if anthropic else error.body()
    return JSONResponse(body, status_code=error.status, headers=error.headers())


async def _gone(request: Request, error: Exception) -> Response:
    """For the log alone: the client left before its body or its answer was complete."""
    return Response(status_code=CLIENT_LEFT)


async def _not_found(request: Request, error: Exception) -> Response:
    """Unknown routes and methods."""
    assert isinstance(error, HTTPException)
    told = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return await _told(request, ApiError(told, status=error.status_code, code="not_found"))


async def _broken(request: Request, error: Exception) -> Response:
    """An error of our own; Ray Serve's log has it."""
    told = ApiError("the server failed to answer", status=500, kind="server_error")
    return await _told(request, told)
