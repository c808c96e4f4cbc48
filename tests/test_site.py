"""The check of the built site finds what it is there for."""

from pathlib import Path

import pytest

from docs import build_site


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="//cdn.example.org/a.css">',
        '<img alt="a" src="http://cdn.example.org/a.png">',
        "<style>@import 'https://cdn.example.org/a.css';</style>",
        "<style>@font-face { src: url(https://cdn.example.org/a.woff2) }</style>",
    ],
)
def test_what_a_page_loads_from_another_host_is_found(tmp_path: Path, html: str) -> None:
    (tmp_path / "a.html").write_text(html, encoding="utf-8")
    assert list(build_site.hosts_loaded_from(tmp_path)) == [(tmp_path / "a.html", "cdn.example.org")]


def test_a_link_to_another_host_loads_nothing(tmp_path: Path) -> None:
    html = '<a href="https://example.org/">a</a><link rel="canonical" href="https://example.org/"><img src="a.png">'
    (tmp_path / "a.html").write_text(html, encoding="utf-8")
    assert list(build_site.hosts_loaded_from(tmp_path)) == []


def test_a_link_to_a_missing_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.txt").touch()
    html = '<a href="b.txt#x">b</a><a href="c.txt">c</a><a href="#d">d</a><a href="https://example.org/e">e</a>'
    (tmp_path / "a.html").write_text(html, encoding="utf-8")
    assert list(build_site.broken_links(tmp_path)) == [(tmp_path / "a.html", "c.txt")]
