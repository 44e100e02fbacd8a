"""Pages from templates and texts: those that are shipped, and an operator's."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from support.pages import SHIPPED, PageText
from visa_jupyter_proxy.error_pages import TEMPLATES, load
from visa_jupyter_proxy.routes import ConfigurationError

_EVERY = [(language, name) for language in SHIPPED for name in TEMPLATES]


@pytest.mark.parametrize(("language", "name"), _EVERY, ids=map("-".join, _EVERY))
class TestShipped:
    """Every page, in every language."""

    def test_it_needs_nothing_else(self, language: str, name: str) -> None:
        """It loads nothing; what it leads to is VISA alone, and not into a frame of itself."""
        page = SHIPPED[language][name].body.decode()
        assert {"/", ""} >= set(PageText(page).links)
        # To try again is to ask for the same address, in the frame in which the page is.
        assert page.count("<a ") == page.count('target="_top"') + page.count('<a href="">')
        assert [] == [
            mark for mark in ("url(", "@import", "http:", "https:", "style=", "onclick") if mark in page
        ]

    def test_its_policy_allows_it_what_it_has_and_no_more(self, language: str, name: str) -> None:
        """Its own script and style, by their hashes; to ask this site, when it waits."""
        page = SHIPPED[language][name]
        (style,), scripts = (
            re.findall(rf"<{kind}>(.*?)</{kind}>", page.body.decode(), re.DOTALL)
            for kind in ("style", "script")
        )
        directives = dict(part.split(" ", 1) for part in page.policy.split("; "))
        expected = {
            "default-src": "'none'",
            "style-src": _hash(style),
            "img-src": "data:",
            "font-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
        }
        if scripts:
            (script,) = scripts
            expected |= {"script-src": _hash(script), "connect-src": "'self'"}
        assert expected == directives
        assert bool(scripts) == (b"data-waits" in page.body)

    def test_it_is_small(self, language: str, name: str) -> None:
        """Workers keep them all: half a megabyte in all, at most."""
        assert len(SHIPPED[language][name].body) < 8 * 1024


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_languages_say_the_same() -> None:
    """No page of another language falls back to English; each says which language it is in."""
    for name in TEMPLATES:
        english, french = (PageText(SHIPPED[language][name].body.decode()).said for language in ("en", "fr"))
        assert english["h1"] != french["h1"]
        assert [] == [text for text in english["p"] if text in french["p"]]
        assert b'<html lang="fr">' in SHIPPED["fr"][name].body


def test_visa_is_where_the_operator_says() -> None:
    """VISA_URL stands in every link, and cannot break out of it."""
    page = load(None, 'https://visa.example.org/?a="b"&c')["en"]["no_token"].body.decode()
    assert ['https://visa.example.org/?a="b"&c'] == PageText(page).links


class TestReplaced:
    """An operator's own (PAGES_DIR)."""

    def test_a_page(self, tmp_path: Path) -> None:
        """Those of its template, in every language; all the others stay as they are."""
        (tmp_path / "stopped.html").write_text(
            "<!doctype html><title>Off</title><main>{{ text.title }}</main>"
        )
        pages = load(tmp_path, "/")
        assert "Your instance is switched off" in pages["en"]["instance_stopped"].body.decode()
        assert "<title>Off</title>" in pages["fr"]["stopping"].body.decode()
        assert SHIPPED["en"]["building"] == pages["en"]["building"]

    def test_one_that_builds_upon_what_it_replaces(self, tmp_path: Path) -> None:
        """With a picture of its own, in the page itself."""
        (tmp_path / "layout.html").write_text(
            '{% extends "shipped/layout.html" %}'
            '{% block picture %}<img alt="ILL" src="data:image/gif;base64,R0lGODlh">{% endblock %}'
        )
        assert 'alt="ILL"' in load(tmp_path, "/")["en"]["building"].body.decode()

    def test_the_style(self, tmp_path: Path) -> None:
        """Its policy follows."""
        (tmp_path / "page.css").write_text("body { color: red }")
        page = load(tmp_path, "/")["en"]["no_route"]
        assert "style-src " + _hash("\nbody { color: red }") in page.policy

    def test_a_text_and_a_language(self, tmp_path: Path) -> None:
        """What a file leaves out is English."""
        (tmp_path / "fr.toml").write_text('[instance_stopped]\ndo = "Appelez le 7070."\n')
        (tmp_path / "de.toml").write_text('[instance_stopped]\ntitle = "Ihre Instanz ist ausgeschaltet"\n')
        pages = load(tmp_path, "/")
        assert "Votre instance est arrêtée" in pages["fr"]["instance_stopped"].body.decode()
        assert "Appelez le 7070." in pages["fr"]["instance_stopped"].body.decode()
        german = pages["de"]["instance_stopped"].body.decode()
        assert [True] * 3 == [
            text in german
            for text in ('lang="de"', "Ihre Instanz ist ausgeschaltet", "Start the instance in VISA.")
        ]

    @pytest.mark.parametrize(
        ("name", "content", "mistake"),
        [
            ("stopped.html", "{% if %}", "stopped.html, line 1: "),
            (
                "stopped.html",
                "\n{{ text.titel }}",
                "stopped.html cannot be rendered: 'dict object' has no attribute",
            ),
            ("stopped.html", "x" * 65537, "stopped.html makes a page of 65537 bytes: make it smaller"),
            (
                "stopped.html",
                '<img src="/logo.png">',
                "a page loads nothing: put what <img> loads into the page",
            ),
            ("stopped.html", '<link rel="stylesheet" href="x.css">', "a page loads nothing"),
            ("stopped.html", "<script>let id = '{{ request_id }}'</script>", "can stand in a <script>"),
            ("stoped.html", "x", "stoped.html is used by no page: name it as what it replaces (gone.html"),
            ("fr.toml", "[stopped", "fr.toml: "),
            ("fr.toml", 'title = "x"', 'write sections of texts, such as [title] and title = "..."'),
            ("fr.toml", '[intrnal]\ntitle = "x"', "there is no [intrnal]; do you mean internal?"),
            ("fr.toml", '[instance_stopped]\ntext = "x"', "there is no text in [instance_stopped]"),
            ("French.toml", "", "French.toml: name it after a language, such as"),
        ],
    )
    def test_a_mistake_is_told_at_the_start(
        self, tmp_path: Path, name: str, content: str, mistake: str
    ) -> None:
        """With the file, and what to change."""
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path, "/")
        (told,) = caught.value.mistakes
        assert mistake in told
        assert name in told
