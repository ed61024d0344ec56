"""Writes docs/configuration.md from the recipes' options: python -m fastgan.cli.reference >
docs/configuration.md"""

from __future__ import annotations

from fastgan import recipes
from fastgan.recipes.config import Config, fields_of
from fastgan.trainer.run_options import type_of

HEAD = """# Configuration

Every option is a flag of `fastgan train` and a name in a TOML file: `fastgan train --config
my.toml`. The file replaces defaults, and flags replace the file. A run folder holds the resolved
options as `config.toml`.

This page is generated: `python -m fastgan.cli.reference > docs/configuration.md`.
"""


def table(config: type[Config], group: str) -> str:
    lines = ["| flag | type | default | |", "|---|---|---|---|"]
    for name, field in fields_of(config).items():
        if field.metadata["group"] == group:
            kind, optional = type_of(config, name)
            choices = field.metadata["choices"]
            shown = (
                " \\| ".join(choices)
                if choices
                else {int: "whole number", float: "number", bool: "yes/no", str: "text"}[kind]
            )
            flag = name.replace("_", "-")
            default = (
                ""
                if field.default is None and optional
                else f"`{str(field.default).lower() if kind is bool else field.default}`"
            )
            if (here := field.metadata["on_cpu"]) is not None:
                default += f"; without a GPU `{here}`"
            lines.append(
                f"| `--{flag}` | {shown} | {default} | "
                f"{field.metadata['help'].replace('|', chr(92) + '|')} |"
            )
    return "\n".join(lines)


def fill(text: str) -> str:
    """Lines of at most 100 columns, broken between words but in no option."""
    words = text.replace("`, ", "`,\n").split("\n")
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > 100:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [
        HEAD,
        "## Every recipe\n\nA recipe may choose other defaults.\n\n"
        + table(recipes.find("dcgan"), "run"),
    ]
    for name in recipes.RECIPES:
        config = recipes.find(name)
        common = fields_of(recipes.find("dcgan"))
        changed = [
            f"`--{k.replace('_', '-')} {f.default}`"
            for k, f in fields_of(config).items()
            if f.metadata["group"] == "run" and f.default != common[k].default
        ]
        own = "\n\n" + fill(f"Other defaults: {', '.join(changed)}.") if changed else ""
        if config.without:
            left = ", ".join(f"`--{k.replace('_', '-')}`" for k in config.without)
            own += "\n\n" + fill(f"It makes {config.makes}, and does not take {left}.")
        summary = config.summary[0].upper() + config.summary[1:]
        parts.append(f"## {name}\n\n{summary}.{own}\n\n{table(config, 'recipe')}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
