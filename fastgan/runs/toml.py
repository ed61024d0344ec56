"""Writing flat TOML; reading is the standard library's tomllib."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dumps(options: Mapping[str, Any]) -> str:
    """One `key = value` line for each option that is not None: strings, numbers, booleans and flat
    lists."""
    return "".join(
        f"{key} = {value_text(value)}\n" for key, value in options.items() if value is not None
    )


def value_text(value: Any) -> str:
    """A TOML value; JSON strings are TOML basic strings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(value_text(v) for v in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)
