"""Trees of named leaves, their `a/b/kernel` paths, and ordered rules over paths.

A tree is a nested dict, as Linen keeps its params. Whatever is not a dict is a leaf.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lib import errors

# Linen's matmul and convolution kernels, and what techniques put below them; no bias,
# norm or embedding.
KERNELS = r"(^|/)kernel(/|$)"

Tree = Any  # a nested dict of leaves
Flat = dict[str, Any]  # path -> leaf or subtree


def flatten(tree: Tree, prefix: str = "") -> Flat:
    """Returns `{path: leaf}` in the tree's own order; empty dicts hold no leaf."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat: Flat = {}
    for key, child in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise TypeError(f"tree keys are names without '/', got {key!r}")
        flat.update(flatten(child, f"{prefix}/{key}" if prefix else key))
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """Returns the nested dict of `{path: leaf}`; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def get(tree: Tree, path: str) -> Any:
    """Returns the leaf or subtree at `path`."""
    for key in path.split("/"):
        tree = tree[key]
    return tree


def replace(tree: Tree, new: Mapping[str, Any], prefix: str = "") -> Tree:
    """Returns `tree` with the leaf or subtree at each path of `new` replaced."""
    if prefix in new:
        return new[prefix]
    if not isinstance(tree, Mapping):
        return tree
    return {
        key: replace(child, new, f"{prefix}/{key}" if prefix else key)
        for key, child in tree.items()
    }


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Returns the compiled regular expression, or raises a `UserError`."""
    try:
        return re.compile(pattern)
    except re.error as e:
        raise errors.UserError(
            f"pattern {pattern!r} is no regular expression: {e}"
        ) from e


def match(patterns: Sequence[str], paths: Iterable[str]) -> dict[str, int]:
    """Returns `{path: index of the first pattern found in it}`, in order of `paths`.

    Args:
      patterns: regular expressions, searched for anywhere in the path; first wins.
      paths: such as `encoder/Dense_0/kernel`. A path that none takes is left out.

    Raises:
      UserError: a pattern is found in no path, or only in paths that earlier
        patterns took.
    """
    paths = list(paths)
    compiled = [compile_pattern(p) for p in patterns]
    took: dict[str, int] = {}
    for path in paths:
        for i, pattern in enumerate(compiled):
            if pattern.search(path):
                took[path] = i
                break
    for i, pattern in enumerate(compiled):
        if i in took.values():
            continue
        if any(pattern.search(path) for path in paths):
            why = "only matches what earlier rules took"
        else:
            why = "matches nothing"
        near = errors.nearest(patterns[i], paths) or paths[:3]
        raise errors.UserError(
            f"rule {patterns[i]!r} {why}; nearest of {len(paths)}: {', '.join(near)}"
        )
    return took
