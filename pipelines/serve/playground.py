"""The playground: one page, with headers that let it run nothing but its own script."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("playground.html")


@cache
def page() -> tuple[str, dict[str, str]]:
    """The page and its headers. Its policy names the hashes of its script and its style."""
    text = FILE.read_text(encoding="utf-8")
    hashes = {tag: _hash(text, tag) for tag in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; "
        f"style-src {hashes['style']}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff"}
    return text, headers | {"referrer-policy": "no-referrer", "cache-control": "no-cache"}


def _hash(text: str, tag: str) -> str:
    (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
    digest = hashlib.sha256(inside.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
