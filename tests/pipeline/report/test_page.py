"""The report is one page that loads nothing, shows what it was given, and executes none of it."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.conditions import Conditions
from devices.measurement.measurement import (
    DeviceIdentity,
    Launch,
    Measurement,
    Ratio,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import Interval
from latency_db.estimate import Estimate
from pipeline.budget import Budget
from pipeline.errors import WorkFolderError
from pipeline.report import (
    BlockLatencies,
    CandidatePoint,
    CandidateRow,
    ComparedNetwork,
    KeptLayer,
    KeptUnit,
    LayerMixture,
    ReportData,
    TargetReport,
    TrainingCurve,
    render,
)
from pipeline.report.data import pareto_front
from pipeline.report.page import page
from pipeline.target_verdict import Accuracy, ClassCount, TargetVerdict

HOSTILE = '</script><img src=x onerror="alert(1)"> & "quoted" <b>bold</b>'


def a_measurement(target: str, headline_ns: int, verdict: Verdict = Verdict.VALID) -> Measurement:
    calm = Conditions(0.1, 2**33, (2_400_000,), "performance", None, 0)
    launches = tuple(
        Launch(90_000_000, 4_000_000, 900_000, tuple([headline_ns + 700 * k] * 60), 2**26, calm, calm)
        for k in range(7)
    )
    return Measurement(
        artifact_digest="ab" * 32,
        target=target,
        runtime=RuntimeIdentity("onnxruntime", "1.0", "cd" * 32, "fp32", 1),
        device=DeviceIdentity("x86_64", "fixture", 2, "Linux", "6.1", "none"),
        protocol=MeasuringProtocol(launches=7),
        launches=launches,
        verdict=verdict,
        reasons=() if verdict is Verdict.VALID else (Reason("spread", "launches differ by 14 %"),),
        started_at="2024-01-01T00:00:00+00:00",
    )


def an_estimate(value_ns: float) -> Estimate:
    return Estimate(0.93 * value_ns, value_ns, 1.08 * value_ns, 0.9)


def a_target(target: str, scale: float, *, feasible: bool, text: str = "k=5 e=4 d=2") -> TargetReport:
    limit_ns = 52_000 * scale
    mine = a_measurement(target, int(47_000 * scale), Verdict.VALID if feasible else Verdict.DEGRADED)
    verdict = TargetVerdict(
        target=target,
        artifact_digest="ab" * 32,
        accuracy=Accuracy(351, 360, (ClassCount(176, 180), ClassCount(175, 180))),
        measurement=mine,
        reference=a_measurement(target, int(86_000 * scale)),
        ratio=Ratio(0.541, 0.548, 0.556, 0.984),
        budget=Budget.parse("0.6x soft"),
        feasible=feasible,
        why=f"the measured latency, 0.548x [0.541, 0.556] of the reference network's, {text}",
    )
    accuracies = [0.90, 0.93, 0.925, 0.951, 0.955, 0.948, 0.962, 0.96, 0.967, 0.958, 0.971, 0.964]
    candidates = tuple(
        CandidatePoint(
            f"{text} number={k}",
            accuracy,
            0.01,
            an_estimate((22_000 + 2_300 * k + 900 * (k % 3)) * scale),
            k == 10,
        )
        for k, accuracy in enumerate(accuracies)
    )
    comparisons = tuple(
        ComparedNetwork(
            f"{text} network={k}",
            an_estimate((30_000 + 7_000 * k) * scale),
            Interval(
                (29_000 + 7_100 * k) * scale, (29_400 + 7_100 * k) * scale, (29_900 + 7_150 * k) * scale, 0.94
            ),
            k < 7,
        )
        for k in range(9)
    )
    names = ("stem 1x8x8", "mbconv 8x8x8 k3 e2 -> 8", "mbconv 8x8x8 k5 e4 se -> 24 stride=2", "head 24x4x4")
    networks = tuple(
        BlockLatencies(
            network,
            tuple(
                (f"{name} {text}", Interval(v * 0.98, v, v * 1.04, 0.94))
                for name, v in zip(
                    names * repeat,
                    [3_000.0 * scale, 9_500 * scale, 14_000 * scale, 6_000 * scale] * repeat,
                    strict=True,
                )
            ),
        )
        for network, repeat in (("winner", 1), ("reference network", 2))
    )
    return TargetReport(
        verdict,
        an_estimate(46_000 * scale),
        limit_ns,
        candidates,
        21_000,
        PROCESSOR,
        TEACHER,
        comparisons,
        networks,
        why_unused="the budget on <b>another</b> is nearer",
    )


PROCESSOR = "Fixture <1> CPU"
TEACHER = Interval(94_000, 94_000, 94_000, 0.95)


def a_report(text: str = "k=5 e=4 d=2") -> ReportData:
    curves = tuple(
        TrainingCurve(
            name,
            tuple(2.3 * 0.9**k + 0.05 for k in range(30)),
            tuple(1 - 0.6 * 0.85**k - gap for k in range(30)),
        )
        for name, gap in (("teacher", 0.012), (f"student {text}", 0.02))
    )
    return ReportData(
        title=f"quickstart {text}",
        summary="1 of 2 targets keeps its budget, as measured on the target.",
        teacher_accuracy=0.9833,
        student_accuracy=0.975,
        teacher_parameters=1_234_567,
        student_parameters=9_876,
        student_macs=54_321,
        labels=("cat", f"dog {text}"),
        targets=(
            a_target("host/onnxruntime:fp32@1", 1.0, feasible=True, text=text),
            a_target("host/litert:fp32@1", 1.7, feasible=False, text=text),
        ),
        curves=curves,
        candidates=(
            CandidateRow(text, "98.10 % ± 0.40 %", "", "97.20 % ± 0.30 %", "naswot 12.5, <i>synflow</i> 3"),
        ),
        ratings=("rating naswot: trusted 0.41, tau 0.20 without it",),
        provenance=(
            ("teacher", "ef" * 32),
            ("student architecture", text),
            ("device", "fixture, 2 cores"),
            ("conditions before", "load 0.1, governor performance"),
            ("torch", "2.0"),
        ),
        recipe=f'name = "quickstart"\n# {text}\n[data]\nkind = "digits"\n',
        mixtures=(
            LayerMixture((8, 8), ("stem", f"blocks.0 {text}"), (0.25, 0.75)),
            LayerMixture((4, 4), ("blocks.1",), (1.0,)),
        ),
    )


class Elements(html.parser.HTMLParser):
    """Collects elements, attributes and text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data: dict[str, str] = {}
        self._inside: tuple[str, dict[str, str | None]] = ("", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ("", {})

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside
        if tag == "script" and attributes.get("type") == "application/json":
            self.data[str(attributes["id"])] = data
        elif tag not in ("script", "style"):
            self.text += data


def parsed(path: Path) -> Elements:
    elements = Elements()
    elements.feed(path.read_text(encoding="utf-8"))
    return elements


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Elements:
    return parsed(render(a_report(), tmp_path_factory.mktemp("report") / "report.html"))


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Elements:
    return parsed(render(a_report(HOSTILE), tmp_path_factory.mktemp("report") / "report.html"))


def test_render_loads_nothing_from_outside(report_page: Elements) -> None:
    for tag, attributes in report_page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
    policies = [a["content"] for t, a in report_page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none';")
    assert not re.search("https?:", policies[0])


def test_render_has_style_without_imports_and_urls() -> None:
    style = (Path(render.__code__.co_filename).parent / "page.css").read_text()
    assert "@import" not in style
    assert "url(" not in style


def test_render_embeds_plotly_once(report_page: Elements) -> None:
    scripts = [attributes for tag, attributes in report_page.tags if tag == "script"]
    assert len([attributes for attributes in scripts if "type" not in attributes]) == 2


def test_a_report_is_small_and_its_plots_are_of_kinds_that_the_basic_bundle_of_plotly_has(
    report_page: Elements, tmp_path: Path
) -> None:
    """The basic bundle has scatter, bar and pie: https://github.com/plotly/plotly.js/tree/master/dist."""
    size = render(a_report(), tmp_path / "report.html").stat().st_size
    assert size < 1_500_000
    text = (tmp_path / "report.html").read_text()
    figures = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    kinds = {trace["type"] for figure in figures for trace in json.loads(figure)["data"]}
    assert kinds == {"scatter", "bar"}


def test_render_says_in_words_which_target_is_feasible(report_page: Elements) -> None:
    words = re.findall(r"(NOT FEASIBLE|FEASIBLE)", report_page.text)
    assert words == ["FEASIBLE", "NOT FEASIBLE"]


def test_render_says_of_what_a_budget_is_and_that_it_is_soft(report_page: Elements) -> None:
    assert "0.6x of the reference network, soft" in report_page.text


def test_render_says_how_large_how_fast_and_how_good_the_student_is_class_by_class(
    report_page: Elements,
) -> None:
    student_ns = a_report().targets[0].verdict.measurement.latency.value_ns
    for figure in (
        f"{TEACHER.value_ns / student_ns:.2f} times as fast",
        "1.82 times as fast",
        "7% unused",
        "9,876",
        "teacher 1,234,567",
        "54,321",
        "21 kB",
        "worst 97.22 %",
        "cat: 97.78 %",
        "176 of 180",
    ):
        assert figure in report_page.text
    assert "compiled for Fixture <1> CPU; the model in the bundle's folder portable/" in report_page.text


def test_render_shows_each_candidate_with_posterior_and_ratings_and_why_the_budget_is_not_used_up(
    report_page: Elements,
) -> None:
    for words in (
        "98.10 % ± 0.40 %",
        "97.20 % ± 0.30 %",
        "naswot 12.5, <i>synflow</i> 3",
        "Rating naswot: trusted 0.41, tau 0.20 without it.",
        "the budget on <b>another</b> is nearer",
    ):
        assert words in report_page.text
    report = a_report()
    bare = replace(report, candidates=(CandidateRow("k=3", "98 %"),))
    assert page(bare) == page(replace(report, candidates=()))


def test_render_labels_estimates_and_measurements(report_page: Elements) -> None:
    assert "Predicted (estimate)" in report_page.text
    for name, data in report_page.data.items():
        figure = json.loads(data)
        x_title, y_title = (figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis"))
        if name.startswith("search"):
            assert "estimate" in x_title
            assert figure["layout"]["yaxis"]["autorangeoptions"] == {"clipmax": 100}
            markers = [trace["marker"]["symbol"] for trace in figure["data"] if trace["mode"] == "markers"]
            assert all(symbol.endswith("-open") for symbol in markers)
        elif name.startswith("prediction"):
            assert "measured" in x_title
            assert "estimate" in y_title
        elif name.startswith("blocks"):
            assert "measured" in x_title


def test_render_shows_every_candidate_block_and_epoch(report_page: Elements) -> None:
    report = a_report()
    search, blocks, accuracy, loss = (
        json.loads(report_page.data[f"{name}-data"])["data"]
        for name in ("search-0", "blocks-0", "curves-accuracy", "curves-loss")
    )
    shown = sum(len(trace["x"]) for trace in search if trace["mode"] == "markers")
    assert shown == len(report.targets[0].candidates)
    assert [len(trace["x"]) for trace in blocks] == [4, 8]
    assert [len(trace["x"]) for trace in (*accuracy, *loss)] == [30] * 4


def test_render_keeps_hostile_names_as_text(hostile_page: Elements, report_page: Elements) -> None:
    assert [tag for tag, _ in hostile_page.tags] == [tag for tag, _ in report_page.tags]
    assert HOSTILE in hostile_page.text
    for data in hostile_page.data.values():
        assert "<img" not in str(json.loads(data))


def test_render_leaves_out_sections_without_content(tmp_path: Path) -> None:
    full = a_report()
    target = full.targets[0]
    bare = TargetReport(target.verdict, None, target.limit_ns, (), 1, "any")
    report = ReportData("bare", "", 1.0, 1.0, 1, 1, 1, (), (bare,), (), (), "")
    elements = parsed(render(report, tmp_path / "report.html"))
    assert not elements.data
    assert "Candidates" not in elements.text


def test_render_refuses_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkFolderError, match="cannot write"):
        render(a_report(), tmp_path / "file" / "report.html")


def test_render_leaves_no_other_file_behind(tmp_path: Path) -> None:
    render(a_report(), tmp_path / "report.html")
    render(a_report(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


points = st.builds(
    lambda latency, accuracy: CandidatePoint("", accuracy, None, an_estimate(latency)),
    st.floats(1, 100),
    st.floats(0, 1),
)


@given(st.lists(points, max_size=20).map(tuple))
def test_pareto_front_holds_exactly_the_accuracies_that_nothing_faster_reaches(
    candidates: tuple[CandidatePoint, ...],
) -> None:
    front = pareto_front(candidates)
    for point in candidates:
        as_fast = [each.accuracy for each in front if each.predicted.value_ns <= point.predicted.value_ns]
        assert max(as_fast) >= point.accuracy
    for slower, faster in zip(front[1:], front, strict=False):
        assert slower.accuracy > faster.accuracy
        assert slower.predicted.value_ns > faster.predicted.value_ns


def test_mixtures_of_layers_are_shown_group_by_group_where_they_were_searched(tmp_path: Path) -> None:
    shown = parsed(render(a_report(), tmp_path / "report.html"))
    assert "Feature aggregation" in shown.text
    first, second = json.loads(shown.data["mixtures-data"])["data"]
    assert (first["name"], first["x"], first["y"]) == ("maps of 8x8", [25.0, 75.0], [0, 1])
    assert (second["name"], second["x"]) == ("maps of 4x4", [100.0])
    without = parsed(render(replace(a_report(), mixtures=()), tmp_path / "without.html"))
    assert "Feature aggregation" not in without.text


def test_what_is_left_of_a_teacher_is_drawn_as_its_graph(tmp_path: Path) -> None:
    left = KeptUnit(
        "layer1.0",
        (
            KeptLayer("layer1.0.conv1", "conv 3x3", (), 6, 16),
            KeptLayer("layer1.0.attention", "attention", (0,), 2, 4, "heads"),
            KeptLayer("", "+", (1, 0)),
        ),
        (("one", 0.75, 0.5), ("other", 0.7, 0.6)),
    )
    gone = KeptUnit(
        "layer1.1",
        (KeptLayer("layer1.1.conv1", "conv 3x3", (2,), 0, 16, removed=True),),
        (("one", 0.25, 0.0),),
    )
    shown = parsed(render(replace(a_report(), units=(left, gone)), tmp_path / "report.html"))
    assert "What is left of the teacher" in shown.text
    for text in (
        "6/16 channels",
        "2/4 heads",
        "75.0 → 50.0 %",
        "25.0 → 0.0 %",
        "other: 70.0% of the teacher",
    ):
        assert text in shown.text
    assert "0/16" not in shown.text
    rects = [each for tag, each in shown.tags if tag == "rect"]
    filled = [float(each["width"] or 0) for each in rects if each.get("class") == "fill"]
    whole = [float(each["width"] or 0) for each in rects if each.get("class") == "back"]
    assert filled == pytest.approx([whole[0] * 6 / 16, whole[0] / 2])
    assert [each.get("class") for tag, each in shown.tags if tag == "g"].count("removed") == 1
    without = parsed(render(a_report(), tmp_path / "without.html"))
    assert "What is left of the teacher" not in without.text


def test_the_teacher_is_compared_with_once_where_the_budget_refers_to_it(tmp_path: Path) -> None:
    report = a_report()
    target = report.targets[0]
    verdict = replace(target.verdict, budget=Budget.parse("0.6x teacher"))
    one = replace(report, targets=(replace(target, verdict=verdict),))
    shown = parsed(render(one, tmp_path / "report.html"))
    assert shown.text.count("Against the teacher") == 1
    assert "1.82 times as fast" in shown.text
