"""What the pages say is there: links, anchors, commands, settings and error messages."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import typer

from liveptv.cli.main import app
from liveptv.config import build_experiment
from tracking.control.settings import KINDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
PACKAGES = ("acquisition", "stream", "engines", "tracking", "calibration", "liveptv")
LINK = re.compile(r"\]\(([^)\s]+)\)")
LONGEST_NAME = 17  # what is longer in a row's first cell is a message
FENCE = re.compile(r"^(```+).*?^\1", re.MULTILINE | re.DOTALL)


def name(page):
    return page.relative_to(ROOT).as_posix()


def anchors(page):
    """The anchors of a page's headings, as MkDocs and code hosts make them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def commands(page):
    """The command lines that a page prints: indented or in a block without a language."""
    text = re.sub(r"^```\w+\n.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [match.strip() for match in re.findall(r"^ {4,}(liveptv [^\n#]*)", text, re.MULTILINE)]


GUIDE = [DOCS / f"{page}.md" for page in ("index", "install", "first-experiment")] + [ROOT / "README.md"]


@pytest.mark.parametrize("page", GUIDE, ids=name)
def test_the_commands_of_the_guide_have_the_options_that_they_are_given(page):
    printed = commands(page)
    assert printed or page.name == "index.md"
    for line in printed:
        words = line.split()[1:]
        command, prefix = typer.main.get_command(app), []
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words[0]]
            prefix.append(words.pop(0))
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        given = {re.split("[=]", word)[0] for word in words if word.startswith("-")}
        assert given <= known | {"--help", "-h"}, line
        assert prefix or given, line


def alternatives(controllers):
    """The controllers that a block shows side by side, of which an experiment has one."""
    kinds = [
        {"controller": {kind: value}}
        for kind, value in controllers.items()
        if kind in KINDS and kind != "file"
    ]
    rest = {key: value for key, value in controllers.items() if key not in KINDS or key == "file"}
    return kinds + ([{"controller": rest}] if rest else []) or [{}]


@pytest.mark.parametrize("page", [page for page in PAGES if "```toml" in page.read_text("utf-8")], ids=name)
def test_the_settings_in_the_pages_are_settings(page):
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        data = tomllib.loads(block)
        if not data:
            continue
        for one in alternatives(data.pop("controller", {})):
            build_experiment(data | one, name(page))


def messages():
    """The texts of the program: constants and f-strings, with a mark where a value is put in."""
    found = []
    for package in PACKAGES:
        for path in ROOT.joinpath(package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"\{\w+\}", "\0", node.value))
    return found


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_program():
    texts = messages()
    text = DOCS.joinpath("troubleshooting.md").read_text("utf-8")
    quoted = [
        quote
        for row in re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
        for quote in row.split("`")[1::2]
        if "…" in quote or len(quote) > LONGEST_NAME
    ]
    assert len(quoted) > 40
    lacking = []
    for quote in quoted:
        parts = [re.escape(part.strip()) for part in quote.split("…") if part.strip()]
        pattern = re.compile(".*?".join(parts), re.DOTALL)
        if not any(pattern.search(one) for one in texts):
            lacking.append(quote)
    assert not lacking
