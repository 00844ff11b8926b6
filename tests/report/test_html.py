import html.parser
import re

import pytest

from lib.report import html as page
from lib.report import results

VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = "<script>alert('x')</script> & \"q\" $1_2$"


class Checker(html.parser.HTMLParser):
    """Checks that tags are balanced; gathers attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.text, self.tags = [], [], "", set()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text += data


def check(text):
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def rendered(samples):
    return page.render(
        samples.result(), samples.curves(), samples.described(), samples.coverage()
    )


def test_the_page_stands_alone(rendered):
    checker = check(rendered)
    for tag, name, value in checker.attributes:
        if name in ("src", "href", "xlink:href", "data", "action"):
            assert value.startswith("#"), (tag, name, value)
    assert "script" not in checker.tags and "link" not in checker.tags
    assert "@import" not in rendered
    assert all(m.startswith("#") for m in re.findall(r"url\((.*?)\)", rendered))


def test_every_reference_within_the_page_is_there_once(rendered):
    checker = check(rendered)
    ids = [value for _, name, value in checker.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [v[1:] for _, n, v in checker.attributes if n == "xlink:href"]
    links += re.findall(r"url\(#(.*?)\)", rendered)
    assert links and set(links) <= set(ids)


def test_the_page_tells_everything(rendered):
    text = check(rendered).text
    for told in (
        "compress",
        "The packed file is 55.0x smaller than teacher's",
        "1,066,440",
        "19,390",
        "-0.28",
        "artifacts/model.pare",
        "prune.sparsity",
        "0.10.2",
        "A technique took 1 of 2 weights, which hold 88.9 % of the parameters.",
        "left as it is",
        "inside a custom_vjp",
        "Sparse of Quantized",
        "test accuracy, %",
    ):
        assert told in text, told
    for stage in ("teacher", "student", "prune"):
        assert text.count(stage) >= 3  # table, Pareto plot and curves


def test_text_of_users_is_escaped(samples):
    result = samples.result((HOSTILE, "student", "prune"))
    result["experiment"] = HOSTILE
    result["config"] = {HOSTILE: {"key": HOSTILE}}
    result["environment"] = {"cpu": HOSTILE}
    result["artifacts"] = {HOSTILE: result["artifacts"]["packed"]}
    result["artifacts"][HOSTILE]["path"] = HOSTILE
    result["stages"][0]["metrics"][HOSTILE] = "nan"
    coverage = samples.coverage()
    coverage["weights"][0].update(path=HOSTILE, taken_by=[HOSTILE])
    coverage["sites"][0].update(site=HOSTILE, taken_by=HOSTILE, why=HOSTILE)
    described = samples.described()
    described[0].update(path=HOSTILE, representation=HOSTILE)
    curves = samples.curves((HOSTILE,))
    checker = check(page.render(result, curves, described, coverage))
    assert "script" not in checker.tags
    assert checker.text.count(HOSTILE) >= 12


def test_a_run_without_training_or_packing(samples):
    result = samples.result()
    result["artifacts"] = {}
    for stage in result["stages"]:
        stage["latency_ms"] = None
    checker = check(page.render(result, {"teacher": []}, [], {}))
    assert "Coverage" not in checker.text and "by layer" not in checker.text
    assert "The file of prune is 5.33x smaller" in checker.text


def test_a_single_stage(samples):
    result = samples.result()
    result["artifacts"], result["stages"] = {}, result["stages"][:1]
    assert "nothing to compare" in check(page.render(result, {}, [], {})).text


def test_write(samples, tmp_path):
    result = results.write(tmp_path, samples.result())
    path = page.write(tmp_path, result, samples.curves(), [], {})
    assert path == tmp_path / "report.html"
    check(path.read_text(encoding="utf-8"))
