"""Builds the documentation as a static site and checks its links: `make docs`.

    python docs/build.py [FOLDER]          default: build/docs

The pages of docs/ and the README become HTML (markdown2), and the docstrings of the public packages
an API reference under api/ (pdoc). The exit code is 1 where a link leads nowhere.
"""

import importlib
import pkgutil
import re
import shutil
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import markdown2
import pdoc
import pdoc.render

import fastgan.recipes

ROOT = Path(__file__).parent.parent
EXTRAS = ["fenced-code-blocks", "tables", "header-ids", "code-friendly", "cuddled-lists"]
PUBLIC = ("data", "metrics", "models", "objectives", "ops", "monitor.pictures", "recipes")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ max-width: 56em; margin: 2em auto; padding: 0 1em }}
body {{ font: 16px/1.55 sans-serif; color: #222 }}
pre, code {{ font: 14px/1.4 monospace; background: #f4f4f4; border-radius: 4px }}
pre {{ padding: .7em; overflow-x: auto }} code {{ padding: 0 .2em }} pre code {{ padding: 0 }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
td, th {{ border: 1px solid #ccc; padding: .25em .6em; vertical-align: top; text-align: left }}
img {{ max-width: 100% }} a {{ color: #0b5cad }} nav {{ margin-bottom: 2em }}
</style>
<nav><a href="{up}docs/index.html">fastgan</a> · <a href="{up}api/fastgan.html">API</a></nav>
{body}
</html>
"""


def pages(folder: Path) -> None:
    """The Markdown pages as HTML, and beside them the pictures and programs that they show."""
    sources = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for source in sources:
        place = source.relative_to(ROOT)
        text = source.read_text()
        body = markdown2.markdown(text, extras=EXTRAS)
        body = re.sub(r'(href="(?!\w+:)[^"#]*)\.md(["#])', r"\1.html\2", body)
        title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), "fastgan")
        target = (folder / place).with_suffix(".html")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(PAGE.format(title=title, up="../" * (len(place.parts) - 1), body=body))
    for part in ("docs/images", "docs/examples"):
        ignored = shutil.ignore_patterns("*.md", "__pycache__")
        shutil.copytree(ROOT / part, folder / part, dirs_exist_ok=True, ignore=ignored)
    for name in ("LICENSE", "CITATION.cff", "docs/tutorial.ipynb"):
        shutil.copy(ROOT / name, folder / name)


def reference(folder: Path) -> None:
    """The public packages, by pdoc; of recipes each file."""
    names = ["fastgan", *(f"fastgan.{name}" for name in PUBLIC)]
    for module in map(importlib.import_module, names):  # names that are imported on first use
        vars(module).update(
            {name: getattr(module, name) for name in getattr(module, "__all__", ())}
        )
    names += [f"fastgan.recipes.{m.name}" for m in pkgutil.iter_modules(fastgan.recipes.__path__)]
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*names, output_directory=folder)


def broken(folder: Path) -> list[str]:
    """The links that lead nowhere: to files that are not there, or anchors that no page has."""
    text = {
        page: re.sub(r"(?s)<script.*?</script>", "", page.read_text())
        for page in folder.rglob("*.html")
    }
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', html)) for page, html in text.items()}
    found = []
    for page, html in text.items():
        for link in re.findall(r'(?:href|src)="([^"]+)"', html):
            path, _, anchor = unquote(unescape(link)).partition("#")
            if re.match(r"\w+:", link):
                continue
            target = (page.parent / path).resolve() if path else page.resolve()
            known = (
                None if "api" in page.parts else anchors.get(target)
            )  # pdoc shows what torch's classes inherit
            if not target.exists() or (anchor and known is not None and anchor not in known):
                found.append(f"{page.relative_to(folder)} links to {link}")
    return found


def main(folder: Path) -> int:
    shutil.rmtree(folder, ignore_errors=True)
    folder = folder.resolve()
    pages(folder)
    reference(folder / "api")
    wrong = broken(folder)
    print("\n".join(wrong) or f"{folder / 'docs' / 'index.html'}: all links lead somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs")))
