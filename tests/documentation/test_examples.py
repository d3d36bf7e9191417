"""The Python and shell examples of the pages run.

One that cannot run on any machine is marked with the reason, in Sybil's form: ``<!-- skip: next "needs COCO" -->``.
"""

from __future__ import annotations

import contextlib
import re
from unittest import SkipTest

import pytest
from example_commands import ROOT, run_shell
from sybil import Document, Example
from sybil.evaluators.skip import Skipper
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

FENCE = re.compile(r"^ *```+(\S*)\n.*?^ *```+$", re.MULTILINE | re.DOTALL)
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if FENCE.search(page.read_text())]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def examples(page, folder=None) -> list[Example]:
    """Code blocks and markers of a page, in order; the Python blocks of a page share a namespace."""

    def shell(example: Example) -> None:
        run_shell(example.parsed, folder)

    document = Document.parse(str(page), PythonCodeBlockParser(), CodeBlockParser("bash", shell), SkipParser())
    return list(document.examples())


@each_page
def test_examples_run(page, folder):
    for example in examples(page, folder):
        with contextlib.suppress(SkipTest):
            example.evaluate()


@each_page
def test_skipped_examples_have_a_reason(page):
    for example in examples(page):
        if isinstance(example.region.evaluator, Skipper):
            action, reason = example.parsed
            assert action == "next" and reason, f'{page.name}:{example.line}: write <!-- skip: next "the reason" -->'


@each_page
def test_every_block_has_a_known_language(page):
    """A block of another language, "sh" for one, would not run, and nobody would notice."""
    assert {match[1] for match in FENCE.finditer(page.read_text())} <= {"bash", "python", "yaml", "text"}
