"""Logs of a command and of all processes that work for it: lines of text or JSON.

The command prints them on standard error. Processes on its machine that it started send theirs to
it. On other machines they go to standard error, which Ray keeps in its folder of logs.
"""

import json
import logging
import os
import socket
import struct
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cluster.processes.descendants import leaving

LEVELS = ("debug", "info", "warning", "error")
TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)
PACKAGES = ("actors", "cluster", "models", "pipelines")
LEVEL, FORMAT, SOCKET = "PACELINE_LOG_LEVEL", "PACELINE_LOG_FORMAT", "PACELINE_LOG_SOCKET"
NAME = "paceline"  # of the handler
LONGEST = 65536  # bytes of a line that is sent
OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

log = logging.getLogger(__name__)
_chosen: dict[str, str] = {}  # by a command's options


class Lines(logging.Formatter):
    """Text: time, level, process, message, and the facts that a record has besides."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line; an exception's traceback follows on others."""
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        told = f"{at} {record.levelname.lower():7} {self._process}: {record.getMessage()}"
        facts = " ".join(f"{name}={value}" for name, value in _facts(record).items())
        told = _printable(told + (f" ({facts})" if facts else ""))
        return f"{told}\n{self.formatException(record.exc_info)}" if record.exc_info else told


class JsonLines(Lines):
    """An object for each record, with its facts beside time, level, process and message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)[-LONGEST // 4 :]
        return json.dumps(told, default=str)


class Terminal(logging.Handler):
    """Prints on standard error, above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        write(self.format(record))


class Sender(logging.Handler):
    """Sends lines to the command on this machine; one that cannot be taken at once is dropped."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = f"\0{name}"

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        line = self.format(record).encode(errors="replace")[:LONGEST]
        try:
            self._socket.sendto(line, self._address)
        except OSError:  # the command has ended, or is stopped
            print(line.decode(errors="replace"), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Called by logging."""
        self._socket.close()
        super().close()


def write(line: str) -> None:
    """Print a line on standard error, above a progress bar if there is one."""
    bars = sys.modules.get("tqdm")
    if bars is None:
        print(line, file=sys.stderr, flush=True)
    else:
        bars.tqdm.write(line, file=sys.stderr)


def choose(level: str | None, form: str | None) -> None:
    """Log like this here and in all processes that are started from now on; None: no choice."""
    given = {LEVEL: level, FORMAT: form}
    _chosen.update({name: value for name, value in given.items() if value is not None})
    os.environ.update(_chosen)


def chosen() -> Mapping[str, str]:
    """What `choose` was told, as an environment for processes on other machines."""
    return _chosen


def set_up_command() -> None:
    """Print the logs of this process, and those that others on this machine send."""
    if hasattr(socket, "SO_PASSCRED"):
        name = f"paceline-{uuid.uuid4().hex}"
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        receiver.bind(f"\0{name}")  # a name without a file, which nobody would remove
        os.environ[SOCKET] = name
        threading.Thread(target=_listen, args=(receiver,), daemon=True, name="logs").start()
    _install(Terminal(), "paceline")


def set_up(process: str) -> None:
    """Log from a process that works for a command, under this name.

    Leaves logging as it is where no command and no environment asks for anything.
    """
    name = os.environ.get(SOCKET)
    if not any(each in os.environ for each in (LEVEL, FORMAT, SOCKET)):
        return
    _install(Sender(name) if name else logging.StreamHandler(), process)


def _is_told(record: logging.LogRecord) -> bool:
    """Our own lines, and warnings of others: Ray Train lowers the level of its workers' root."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in PACKAGES


def _install(handler: logging.Handler, process: str) -> None:
    level, form = _asked(LEVEL, LEVELS, "warning"), _asked(FORMAT, FORMATS, TEXT)
    handler.setFormatter(JsonLines(process) if form == JSON else Lines(process))
    handler.name = NAME
    handler.addFilter(_is_told)
    root = logging.getLogger()
    for old in [each for each in root.handlers if each.name == NAME]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())
    for name, known in ((LEVEL, LEVELS), (FORMAT, FORMATS)):
        if os.environ.get(name, known[0]) not in known:
            told = ", ".join(known)
            log.warning("%s=%s is passed over: one of %s", name, os.environ[name], told)


def _asked(name: str, known: Sequence[str], default: str) -> str:
    found = os.environ.get(name, default)
    return found if found in known else default


def _listen(receiver: socket.socket) -> None:
    """Print what processes of this user send."""
    room = socket.CMSG_SPACE(CREDENTIALS.size)
    while True:
        line, ancillary, *_ = receiver.recvmsg(LONGEST, room)
        senders = [
            CREDENTIALS.unpack(data[: CREDENTIALS.size])[1]
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        if senders == [os.getuid()] and not leaving.is_set():  # then they end in any order
            write(line.decode(errors="replace"))


def _printable(text: str) -> str:
    """Nobody forges lines, or moves the terminal's cursor, by a name that is logged."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """What the record was given by `extra`; names that begin with _ are those of libraries."""
    given = record.__dict__.items()
    return {name: value for name, value in given if name not in OWN and name[0] != "_"}
