"""A page of one file: HTML whose policy forbids every script but its own, by its hash."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from typing import Any


def document(
    title: str, body: str, *, style: str, script: str, allows: str, kind: str = "alone"
) -> str:
    """The whole page. body: HTML, escaped where text in it is not ours; allows: sources of images
    and connections in the words of a content security policy; kind: what the script may ask for.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; {allows}; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body data-page="{kind}">
{body}
<script>{script}</script>
</body>
</html>
"""


def asset(package: str, name: str) -> str:
    """A file of a package's folder `assets`."""
    return resources.files(package).joinpath("assets", name).read_text("utf-8")


def json_text(value: Any) -> str:
    """JSON that can't end the element it stands in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
