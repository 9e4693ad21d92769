from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_rest_bridge.templates import PathTable, parse


def table_of(*templates: str) -> PathTable[str]:
    table: PathTable[str] = PathTable()
    for text in templates:
        table.add("GET", parse(text), text)
    return table


def find(table: PathTable[str], path: str) -> str | None:
    return next((targets["GET"] for targets, _ in table.find(path)), None)


def bind(template: str, path: str) -> dict[str, bytes]:
    _, match = next(table_of(template).find(path))
    return {".".join(name): value for name, value in parse(template).bind(match).items()}


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "a", "a/b", "/a//b", "/a/", "/{", "/{}", "/{a", "/a}", "/{a=}", "/{a=/b}",
        "/{a=b//c}", "/{1}", "/{a=**}/**", "/a:", "/a:b/c:", "/{a={b}}", "/a*", "/x{a}", "/{a}x",
        "/a?b", "/a:b:c",
    ],
)  # fmt: skip
def test_malformed_templates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="path template"):
        parse(text)


@pytest.mark.parametrize(
    ("template", "path", "bound"),
    [
        ("/v1/{id}", "/v1/7", {"id": b"7"}),
        ("/v1/{a.b}/c", "/v1/7/c", {"a.b": b"7"}),
        ("/v1/{name=a/*/b}", "/v1/a/x%2Fy/b", {"name": b"a/x%2Fy/b"}),
        ("/v1/{name=a/*/b}", "/v1/a/x%20%79/b", {"name": b"a/x y/b"}),
        ("/v1/{name}", "/v1/x%2Fy%20", {"name": b"x/y "}),
        ("/v1/{name=*}", "/v1/x%2Fy", {"name": b"x/y"}),
        ("/v1/{name=**}", "/v1/a%3Ab%2fc/d", {"name": b"a%3Ab%2fc/d"}),
        ("/v1/{name=**}", "/v1", {"name": b""}),
        ("/v1/{a=**}/x/{b}", "/v1/1/2/x/3", {"a": b"1/2", "b": b"3"}),
        ("/v1/{a}/{b=**}/c/{d=e/*}", "/v1/1/2/3/c/e/4", {"a": b"1", "b": b"2/3", "d": b"e/4"}),
        ("/v1/**/{a}", "/v1/1/2/3", {"a": b"3"}),
        ("/v1/{id}:go", "/v1/7:go", {"id": b"7"}),
        ("/v1/{id}:go", "/v1/7:up:go", {"id": b"7:up"}),
    ],
)
def test_variables_are_bound(template: str, path: str, bound: dict[str, bytes]) -> None:
    assert find(table_of(template), path) == template
    assert bind(template, path) == bound


def test_the_more_exact_template_goes_first() -> None:
    table = table_of("/a/**", "/a/*", "/a/b", "/a/*/c", "/a/b/**", "/{x}/z/y")
    assert find(table, "/a/b") == "/a/b"
    assert find(table, "/a/x") == "/a/*"
    assert find(table, "/a/x/c") == "/a/*/c"
    assert find(table, "/a/b/c") == "/a/b/**"
    assert find(table, "/a/x/d") == "/a/**"
    assert find(table, "/a/z/y") == "/a/**"
    assert find(table, "/b/z/y") == "/{x}/z/y"


def test_a_colon_is_a_verb_only_where_some_template_has_it() -> None:
    table = table_of("/a/{x}", "/a/{x}:go", "/b/{x}")
    assert find(table, "/a/1:go") == "/a/{x}:go"
    assert find(table, "/a/1:stop") == "/a/{x}"
    assert find(table, "/a/1%3Ago") == "/a/{x}"
    assert find(table, "/b/1:go") is None


def test_slashes_at_the_end_count_for_nothing_and_others_do() -> None:
    table = table_of("/a/b")
    assert find(table, "/a/b///") == "/a/b"
    assert find(table, "//a/b") is None
    assert find(table, "/a//b") is None


def test_literals_of_a_request_are_no_wildcards() -> None:
    table = table_of("/a/**/b", "/c/{x}")
    assert find(table, "/c/*") == "/c/{x}"
    assert find(table, "/**/**/b") is None


def test_two_targets_for_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="two methods"):
        table_of("/a/{x}", "/a/{y}")


@given(st.text(alphabet="/ab:*{}%2F", max_size=20))
def test_any_path_is_looked_up(path: str) -> None:
    find(table_of("/a/{x}", "/a/**/b", "/b/{x=a/*}:a", "/**"), f"/{path}")
