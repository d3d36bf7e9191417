"""Json content that is damaged at random: replaced, removed, repeated and misplaced values."""

from __future__ import annotations

import copy

from hypothesis import strategies as st

numbers = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([10**400, -(10**30), 2**31, 2**63, 1e308, -1e308, 1e-320, 0.5, float("nan"), float("inf")]),
)
texts = st.sampled_from(["", "1-2", "a", "0l^1", "\ud800", "\x00", "1.png"])
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
runs = st.one_of(scalars, st.lists(numbers, max_size=4))
values = st.one_of(
    scalars,
    st.lists(numbers, max_size=8),
    st.lists(st.lists(st.one_of(numbers, scalars), max_size=8), max_size=3),
    st.fixed_dictionaries({}, optional={"size": st.lists(numbers, max_size=3), "counts": runs}),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
)


def places(node, path=()):
    """Paths to all nodes of a json value."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@st.composite
def damaged(draw, content):
    """The content with up to three of its values replaced, removed, duplicated or swapped."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        paths = [path for path in places(content) if path]
        if not paths:
            break
        *above, key = draw(st.sampled_from(paths))
        node = content
        for step in above:
            node = node[step]
        action = draw(st.sampled_from(["replace", "replace", "remove", "repeat", "other place"]))
        if action == "replace":
            node[key] = draw(values)
        elif action == "remove":
            del node[key]
        elif action == "repeat" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        else:
            *other, last = draw(st.sampled_from(paths))
            source = content
            try:
                for step in (*other, last):
                    source = source[step]
            except (KeyError, IndexError):
                continue
            node[key] = copy.deepcopy(source)
    return content
