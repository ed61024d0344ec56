"""What a shell offers at the tab key: `docs/faq.md` says how it is switched on."""

from __future__ import annotations

from typing import Any

from click.shell_completion import CompletionItem
from click.types import StringParamType

VARIABLE = "_FASTGAN_COMPLETE"
"""Set by a shell that asks for words instead of a run of the command."""


class _Path(StringParamType):
    """A text that names a file or folder."""

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


PATH = _Path()


def recipe_names(ctx: Any, param: Any, incomplete: str) -> list[str]:
    from fastgan.recipes import RECIPES

    return [name for name in ("auto", *RECIPES) if name.startswith(incomplete)]
