"""The parts of `report.html` that are tables. All text is escaped here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lib.report import formats, results


def section(title: str, note: str, body: str) -> str:
    """Returns a headed section; `title` and `note` are text, `body` is HTML."""
    told = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{told}{body}</section>\n"


def table(
    heads: Sequence[str], lines: Iterable[str], kind: str = "", long: str = ""
) -> str:
    """Returns a table; `heads` are text, `lines` are `<tr>` elements.

    The head `long` is over cells of that kind, which hold running text.
    """
    named = f' class="{kind}"' if kind else ""
    kinds = [' class="long"' if h == long else "" for h in heads]
    head = "".join(
        f'<th scope="col"{k}>{escape(h)}</th>'
        for h, k in zip(heads, kinds, strict=True)
    )
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table{named}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n"
    )


def line(name: str, cells: Iterable[str], kind: str = "", mono: bool = False) -> str:
    """Returns a `<tr>`; `name` is text, `cells` are `<td>` elements."""
    named = f' class="{kind}"' if kind else ""
    font = ' class="mono"' if mono else ""
    return f'<tr{named}><th scope="row"{font}>{escape(name)}</th>{"".join(cells)}</tr>'


def cell(text: str, kind: str = "") -> str:
    """Returns a `<td>` of text."""
    named = f' class="{kind}"' if kind else ""
    return f"<td{named}>{escape(text)}</td>"


def comparison(result: Mapping[str, Any]) -> str:
    """Returns the section with one row a stage and an artifact."""
    rows = results.rows(result)
    sizes = {row.latency["batch"] for row in rows if row.latency}
    batch = f" of {sizes.pop()}" if len(sizes) == 1 else ""
    heads = [
        "Stage",
        "Accuracy, %",
        f"vs {rows[0].name}",
        "Parameters",
        "Non-zero",
        "File, bytes",
        "MACs",
        f"ms per batch{batch}",
        "Smaller",
        "Faster",
    ]
    lines = []
    for i, row in enumerate(rows):
        ratio = row.ratio if i else {}
        cells = [
            cell(formats.percent(row.accuracy)),
            cell(formats.points(ratio.get("accuracy"))),
            cell(formats.exact(row.params)),
            cell(formats.exact(row.nonzero)),
            cell(formats.exact(row.file_bytes)),
            cell(formats.count(row.macs)),
            _latency(row, bool(batch)),
            cell(formats.times(ratio.get("file_bytes")), "gain"),
            cell(formats.times(ratio.get("latency")), "gain"),
        ]
        lines.append(line(row.name, cells, "packed" if row.kind == "artifact" else ""))
    note = (
        "Accuracy on the whole test split; the difference is in percentage points. "
        "MACs are multiply-accumulates for one example, zeros included. Milliseconds "
        "are medians, with the low and high of the measurement beside them."
    )
    shipped = "".join(
        f'<p class="note">{escape(name)}: <span class="mono">'
        f"{escape(entry['path'])}</span></p>\n"
        for name, entry in result["artifacts"].items()
    )
    body = table(heads, lines) + shipped
    return section("What it cost and what it saved", note, body)


def _latency(row: results.Row, same_batch: bool) -> str:
    if row.latency is None:
        return cell(formats.MISSING)
    low, middle, high = (
        formats.milliseconds(row.latency[k]) for k in ("low", "median", "high")
    )
    of = "" if same_batch else f" of {row.latency['batch']}"
    return f"<td>{middle}{of} <small>{low}\u2013{high}</small></td>"


def stages(result: Mapping[str, Any]) -> str:
    """Returns the table of what each stage took and all that was measured after it."""
    names: list[str] = []
    for stage in result["stages"]:
        names += [n for n in stage["metrics"] if n not in names and n != "accuracy"]
    lines = []
    for stage in result["stages"]:
        cells = [
            cell(formats.exact(stage["steps"])),
            cell(formats.duration(stage["seconds"])),
        ]
        cells += [_metric(name, stage["metrics"].get(name)) for name in names]
        lines.append(line(stage["name"], cells))
    heads = ["Stage", "Steps", "Time", *(_words(name) for name in names)]
    return table(heads, lines)


def _words(name: str) -> str:
    text = name.replace("_", " ")
    text = text[:1].upper() + text[1:]
    return f"{text}, %" if name.endswith("accuracy") else text


def _metric(name: str, value: Any) -> str:
    if value is None:
        return cell(formats.MISSING)
    if isinstance(value, str):  # a number that is not finite
        return cell(value)
    if name.endswith("accuracy"):
        return cell(formats.percent(value))
    return cell(formats.scalar(value))


def layers(described: Sequence[Mapping[str, Any]]) -> str:
    """Returns the folded table of how each leaf is kept."""
    lines = [
        line(
            layer["path"],
            [
                cell(_shape(layer["shape"])),
                cell(formats.exact(layer["params"])),
                cell(formats.exact(layer["nonzero"])),
                cell(str(layer["bits"])),
                cell(layer["representation"]),
            ],
            mono=True,
        )
        for layer in described
    ]
    heads = ["Weight", "Shape", "Parameters", "Non-zero", "Bits", "Kept as"]
    return _fold(f"All {len(described)} weights", table(heads, lines))


def _shape(shape: Sequence[int]) -> str:
    return " \u00d7 ".join(str(n) for n in shape) or "scalar"


def _fold(title: str, body: str) -> str:
    return f"<details>\n<summary>{escape(title)}</summary>\n{body}</details>\n"


def _names(taken_by: Any) -> list[str]:
    if not taken_by:
        return []
    return [taken_by] if isinstance(taken_by, str) else [str(t) for t in taken_by]


def _chips(taken_by: Any, otherwise: str) -> str:
    names = _names(taken_by)
    if not names:
        return f'<td class="none">{escape(otherwise)}</td>'
    chips = "".join(f'<span class="chip">{escape(name)}</span>' for name in names)
    return f"<td>{chips}</td>"


def coverage(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns the section that tells what no technique reached, or nothing."""
    weights, sites = found.get("weights", []), found.get("sites", [])
    if not weights and not sites:
        return ""
    words, body = [], ""
    if weights:
        all_of_them = sum(math.prod(w["shape"]) for w in weights)
        taken = [w for w in weights if _names(w["taken_by"])]
        part = sum(math.prod(w["shape"]) for w in taken) / max(all_of_them, 1)
        words.append(
            f"A technique took {len(taken)} of {len(weights)} weights, which hold "
            f"{formats.percent(part, 1)} % of the parameters."
        )
        lines = [
            line(
                w["path"],
                [cell(_shape(w["shape"])), _chips(w["taken_by"], "left as it is")],
                mono=True,
            )
            for w in weights
        ]
        body += "<h3>Weights</h3>\n"
        body += table(["Weight", "Shape", "Taken by"], lines, "words")
    if sites:
        count = sum(bool(_names(s["taken_by"])) for s in sites)
        words.append(
            f"{count} of {len(sites)} operands of contractions are rounded when "
            "the model runs."
        )
        lines = [
            line(
                s["site"],
                [
                    cell(s["weight"], "mono"),
                    _chips(s["weight_taken_by"], "left as it is"),
                    cell(str(s["operand"])),
                    _chips(s["taken_by"], "left as it is"),
                    cell(str(s["bits"]) if s["bits"] else formats.MISSING),
                    cell(s["why"] or "", "none"),
                ],
                mono=True,
            )
            for s in sites
        ]
        body += "<h3>Contractions</h3>\n"
        heads = ["Site", "Weight", "Weight's techniques", "Operand", "Rounded by"]
        heads += ["Bits", "Why not"]
        body += table(heads, lines, "words")
    return section("Coverage", " ".join(words), body)


def settings(result: Mapping[str, Any]) -> str:
    """Returns the section with the whole config and the environment, folded."""
    body = _fold("Config", _pairs(result["config"]))
    body += _fold("Environment and versions", _pairs(result["environment"]))
    return section("How it was made", "", body)


def _pairs(nested: Mapping[str, Any]) -> str:
    lines = [
        line(path, [cell(_value(leaf), "mono")], mono=True)
        for path, leaf in _leaves(nested).items()
    ]
    return table(["Name", "Value"], lines, "words")


def _leaves(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `{dotted name: value}`, empty dicts included."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            below = _leaves(value)
            flat.update({f"{key}.{name}": leaf for name, leaf in below.items()})
        else:
            flat[key] = value
    return flat


def _value(leaf: Any) -> str:
    if isinstance(leaf, list | tuple):
        return "(" + ", ".join(_value(item) for item in leaf) + ")"
    return str(leaf)
