"""For the site: a page for each file outside docs/ that a page links to, as examples/controller.py.

The links in the pages stay relative to the repository, so that they work there as well.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

REPOSITORY = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)(#[^)]*)?\)")
LANGUAGES = {".py": "python", ".toml": "toml", ".cfg": "ini", ".md": "markdown", ".json": "json"}


def outside(page: str, link: str) -> str | None:
    """The file of the repository that a link of a page means; None if it lies within docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith(("docs/", "..")) else path


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the files that are linked to."""
    wanted = set()
    for file in files.documentation_pages():
        for match in LINK.finditer(file.content_string):
            path = outside(file.src_uri, match[2])
            if path and (REPOSITORY / path).is_file():
                wanted.add(path)
    for path in sorted(wanted):
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        language = LANGUAGES.get(Path(path).suffix, "text")
        page = f"# {path}\n\n````{language}\n{text}````\n"
        files.append(File.generated(config, f"source/{path}.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let the links lead to these pages. A missing file stays a broken link, which strict mode reports."""
    here = posixpath.dirname(page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        path = outside(page.file.src_uri, match[2])
        if path is None or files.get_file_from_path(f"source/{path}.md") is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(f'source/{path}.md', here or '.')})"

    return LINK.sub(led, markdown)
