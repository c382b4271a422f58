from __future__ import annotations

import base64
import io
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_runs import write_digits, write_eval, write_run
from rich.console import Console

from robustkit.analysis.statistics import rate
from robustkit.arrays import Gallery
from robustkit.errors import BadValueError
from robustkit.records import PartRecord, RunFolder, Threat
from robustkit.report import (
    Run,
    accuracies,
    collect,
    from_points,
    html,
    images,
    markdown,
    measures,
    summary,
    terminal,
)
from robustkit.report.comparison import compare

HOSTILE = "</style></title><script>alert(1)</script>|[x](http://evil)\x1b[31m$\\frac$ \"'&"
VOID = {"meta", "img", "br", "link", "hr", "input"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("runs") / "digits").path


@pytest.fixture(scope="module")
def page(digits: Path) -> str:
    return html.render(collect([digits]))


class Page(HTMLParser):
    """Checks that tags balance, and gathers what they say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def one(folder: RunFolder) -> Run:
    return collect([folder.path])[0]


def in_terminal(runs: list[Run], width: int = 80) -> str:
    file = io.StringIO()
    terminal.show(runs, Console(file=file, width=width))
    return file.getvalue()


def everywhere(runs: list[Run]) -> list[str]:
    found = [Page(html.render(runs)).text, markdown.render(runs), in_terminal(runs, 400)]
    return [text.replace("\u00a0", " ") for text in found]


def unpng(uri: str) -> Any:
    from matplotlib.image import imread

    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return imread(io.BytesIO(data), format="png")


def test_it_never_imports_torch(digits: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from robustkit.report import collect, html, markdown, terminal\n"
        "assert not {'matplotlib', 'jinja2', 'numpy'} & set(sys.modules)\n"
        f"runs = collect([Path({str(digits)!r})])\n"
        "html.render(runs), markdown.render(runs), terminal.show(runs)\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_needs_no_network_and_is_small(page: str) -> None:
    found = Page(page)
    assert len(page) < 3_000_000
    assert "http" not in page
    assert not re.search(r"@import|url\((?!#)", page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert all((a["src"] or "").startswith("data:image/png") for a in found.attributes("img"))


def test_the_page_is_accessible(page: str) -> None:
    found = Page(page)
    assert all(a.get("alt") for a in found.attributes("img"))
    assert all(a.get("scope") in ("row", "col") for a in found.attributes("th"))
    charts = [a for a in found.attributes("div") if a.get("role") == "img"]
    assert len(charts) == page.count("<svg ") > 0
    assert all(a.get("aria-label") for a in charts)
    ids = [a["id"] for _, a in found.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    targets = {
        a["href"].removeprefix("#") for _, a in found.tags if (a.get("href") or "")[:1] == "#"
    }  # type: ignore[union-attr]
    assert targets <= set(ids)


def test_figures_are_numbered_in_order_and_say_what_they_show(page: str) -> None:
    numbers = [int(n) for n in re.findall(r"<b>Figure (\d+)\.</b>", page)]
    assert numbers == list(range(1, page.count("<figure") + 1))
    text = Page(page).text
    assert "8 of 8 stored examples under autoattack linf 0.1" in text
    assert "times 5 around mid-grey" in text
    assert "on 360 points" in text


def test_charts_take_the_colours_of_the_page(page: str) -> None:
    charts = "".join(re.findall(r"<svg .*?</svg>", page, flags=re.S))
    assert "var(--s1)" in charts
    assert "#0101" not in charts


def test_the_verdict_is_the_records(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    record, _ = write_eval(folder, shown=0, robust=rate(235, 360), clean=rate(342, 360))
    run = one(folder)
    expected = (
        "Robust accuracy 65.3 % [60.2, 70.0] under autoattack linf 0.1 on 360 test points;"
        " clean 95.0 % [92.2, 96.8]."
    )
    assert record.robust.count == 235
    assert summary.verdict(run) == expected
    for text in everywhere([run]):
        assert expected in text


def test_the_verdict_is_of_the_runs_own_threat_and_prefers_autoattack(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_eval(folder, eps=0.3, shown=0)
    write_eval(folder, "pgd", parts=["pgd"], strength=1.5, shown=0)
    write_eval(folder, shown=0)
    run = one(folder)
    chosen = summary.headline(run)
    assert chosen is not None
    assert (chosen.record.attack["name"], chosen.record.threat.eps) == ("autoattack", 0.1)
    worst = next(row for row in accuracies.rows(run) if row.attack == "worst case")
    assert worst.robust is not None
    assert worst.robust.count < chosen.record.robust.count
    assert f"{summary.with_interval(worst.robust)} under all 2 attacks" in summary.verdict(run)


def test_where_numbers_come_from_is_told(digits: Path, page: str) -> None:
    written = markdown.render(collect([digits])).replace("\\", "")
    for text in (Page(page).text, written):
        for expected in ("0123456789ab", "torch 2.15.0", "feedbeef", "cpu (x86_64)", "1 min 23 s"):
            assert expected in text
    assert "[trainer]" in page


def test_worst_case_counts_points_that_withstand_all_whatever_their_order(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    _, points = write_eval(folder, shown=0, n=50)
    flip = {name: values[::-1] for name, values in vars(points).items()}
    flip["robust"] = flip["robust"].copy()
    lost = np.flatnonzero(flip["robust"])[:5]
    flip["robust"][lost] = False
    count = int(flip["robust"].sum())
    record, _ = write_eval(folder, "pgd", parts=["pgd"], shown=0, n=50, robust=rate(count, 50))
    type(points)(**flip | {"broken_by": np.minimum(flip["broken_by"], 0)}).write(
        folder.evaluations / f"{record.stem}.npz"
    )
    (worst,) = measures.worst_cases(one(folder).evaluations)
    assert worst.robust == rate(int(points.robust.sum()) - 5, 50)


def test_other_points_are_never_mixed_into_a_worst_case(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_eval(folder, shown=0, n=50)
    write_eval(folder, "pgd", parts=["pgd"], shown=0, n=40)
    write_eval(folder, "fgsm", parts=["fgsm"], shown=0, n=50, model_hash="other")
    run = one(folder)
    assert measures.worst_cases(run.evaluations) == []
    assert "different weights" in " ".join(summary.notices(run))


def test_curves_begin_at_the_clean_accuracy_and_follow_smallest_sizes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for eps in (0.2, 0.05):
        write_eval(folder, eps=eps, shown=0)
    _, points = write_eval(folder, "fab-t", "l2", math.inf, parts=["fab-t"], shown=0)
    (measured,) = measures.curves(one(folder).evaluations)
    (single,) = from_points.spent(one(folder).evaluations)
    (minimal,) = single.curves()
    assert measured.at == (0.0, 0.05, 0.2)
    clean = one(folder).evaluations[0].record.clean
    assert measured.rates[0] == clean
    assert minimal.rates[0] == clean
    assert minimal.rates[-1].count == 0
    for eps, robust in zip(minimal.at, minimal.rates, strict=True):
        assert robust.count == int((points.sizes > eps).sum())


def test_with_and_without_the_box_are_two_curves_and_two_columns(tmp_path: Path) -> None:
    open_box = {"low": -math.inf, "high": math.inf}
    folders = [write_run(tmp_path / name) for name in ("first", "second")]
    for folder in folders:
        for eps in (0.1, 0.2):
            write_eval(folder, "pgd", eps=eps, parts=["pgd"], shown=0)
            threat = Threat(norm="linf", eps=eps, **open_box)
            write_eval(folder, "pgd", eps=eps, parts=["pgd"], threat=threat, hash="open", shown=2)
    runs = collect([folder.path for folder in folders])
    closed, opened = measures.curves(runs[0].evaluations)
    assert (closed.attack, opened.attack) == ("pgd", "pgd, no box")
    assert closed.at == opened.at == (0.0, 0.1, 0.2)
    assert [worst.evaluations for worst in measures.worst_cases(runs[0].evaluations)] == []
    threats = [row.threat for row in accuracies.rows(runs[0])]
    assert threats == ["linf 0.1", "linf 0.2", "linf 0.1, no box", "linf 0.2, no box"]
    names = [column.name for column in compare(runs).columns]
    assert names == [f"pgd {threat}" for threat in sorted(threats)]
    text = html.render(runs[:1])
    assert "pgd, no box</text>" in text
    assert "pgd linf 0.2, no box" in text


def test_smallest_perturbations_without_a_box_are_said_to_be(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    threat = Threat(norm="l2", eps=math.inf, low=-math.inf, high=math.inf)
    write_eval(folder, "fab-t", "l2", math.inf, threat=threat, parts=["fab-t"], shown=0)
    (row,) = accuracies.rows(one(folder))
    assert row.threat == "l2 smallest, no box"


def test_smallest_perturbations_have_a_median_and_no_rate(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    _, points = write_eval(folder, "fab-t", "l2", math.inf, parts=["fab-t"], shown=0, n=41)
    (row,) = accuracies.rows(one(folder))
    sizes = np.sort(points.sizes[points.broken_by >= 0])
    assert row.robust is None
    median = sizes[(len(sizes) - 1) // 2]
    assert row.instead == f"median {median:.4g}, mean {sizes.mean():.4g}"
    for text in everywhere([one(folder)]):
        assert row.instead in text


def test_rates_by_class_are_counted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    _, points = write_eval(folder, shown=0)
    found = {name: robust for name, _, robust in measures.class_rates(one(folder).evaluations[0])}
    assert sum(robust.count for robust in found.values()) == points.robust.sum()
    threes = points.labels == 3
    assert found["3"] == rate(int(points.robust[threes].sum()), int(threes.sum()))


@pytest.mark.parametrize(
    ("largest", "factor"), [(0.1, 5), (8 / 255, 10), (0.5, 1), (0.9, 1), (0.0, 1), (1e-3, 500)]
)
def test_differences_are_magnified_without_leaving_the_scale(largest: float, factor: int) -> None:
    assert images.magnification(np.array([-largest, largest / 2], np.float32)) == factor


def test_pictures_are_the_images(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    assert np.allclose(unpng(images.picture(rgb))[..., :3], rgb.transpose(1, 2, 0), atol=1 / 255)
    grey = rgb[:1]
    assert np.allclose(unpng(images.picture(grey))[..., 1], grey[0], atol=1 / 255)
    large = np.kron(rgb[:, :2, :2], np.ones((2, 2), np.float32))
    small = unpng(images.picture(large, 2))[..., :3]
    assert np.allclose(small, rgb[:, :2, :2].transpose(1, 2, 0), atol=1 / 255)


def test_examples_show_fooled_ones_first_and_the_difference_around_grey(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    record, _ = write_eval(folder, shown=0)
    x = np.full((3, 1, 2, 2), 0.5, np.float32)
    x_adv = x + np.array([0.1, -0.1, 0.0], np.float32)[:, None, None, None]
    labels, adversarial = np.array([1, 2, 3]), np.array([1, 5, 3])
    Gallery(np.arange(3), x, x_adv, labels, labels, adversarial).write(folder.gallery(record.stem))
    evaluation = one(folder).evaluations[0]
    assert evaluation.gallery is not None
    found = images.examples(evaluation, evaluation.gallery, 1)
    assert [e.label for e in found.shown] == ["2", "1", "3"]
    assert (found.shown[0].predicted, found.shown[0].fooled, found.factor) == ("5", True, 5)
    assert not found.clipped
    assert images.examples(evaluation, replace(evaluation.gallery, x_adv=x_adv - 1), 1).clipped
    greys = [float(unpng(e.difference)[0, 0, 0]) for e in found.shown]
    assert greys == pytest.approx([0.0, 1.0, 0.5], abs=1 / 255)


def test_large_colour_images_of_many_evaluations_stay_small(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "eval-model")
    noise = np.random.default_rng(0).random((6, 3, 224, 224)).astype(np.float32)
    for eps in (0.01, 0.02, 0.03):
        write_eval(folder, eps=eps, images=noise, shown=12)
    text = html.render([one(folder)])
    assert len(text) < 3_000_000
    assert "averaged down here" in text


def test_a_hundred_classes_of_long_and_hostile_names(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", title=HOSTILE, stopped=HOSTILE)
    names = [f"{HOSTILE} {i} " + "very " * 40 + "long 漢字" for i in range(100)]
    write_eval(folder, classes=names, n=400, warnings=(HOSTILE,), remarks=(HOSTILE,))
    runs = [one(folder)]
    text = html.render(runs)
    tags = [tag for tag, _ in Page(text).tags]
    assert (tags.count("script"), tags.count("title"), tags.count("style")) == (0, 1, 1)
    assert len(text) < 3_000_000
    assert "most frequent adversarial confusions" in text
    assert "<script>" not in markdown.render(runs).replace("\\<", "")
    assert "](" not in markdown.render(runs)
    for shown in (text, markdown.render(runs), in_terminal(runs)):
        assert "\x1b" not in shown


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_eval(folder, classes=["$\\frac$", "<b>$"], shown=0)
    charts = re.findall(r"<svg .*?</svg>", html.render([one(folder)]), flags=re.S)
    assert any("$\\frac$" in chart and "&lt;b&gt;$" in chart for chart in charts)


def test_a_heat_map_is_blue_on_the_diagonal_and_orange_off_it() -> None:
    pixels = unpng(images.heat_map(np.array([[4, 0], [3, 1]])))
    assert pixels[0, 0, 2] > pixels[0, 0, 0]
    assert pixels[1, 0, 0] > pixels[1, 0, 2]
    assert pixels[..., 3].ravel() == pytest.approx([1.0, 0.0, math.sqrt(0.75), 0.5], abs=1 / 255)


def test_confusion_counts_are_in_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    record, _ = write_eval(folder, shown=0)
    tables = re.findall(r'<table class="matrix.*?</table>', html.render([one(folder)]), flags=re.S)
    for table, matrix in zip(
        tables, (record.confusion_clean, record.confusion_adversarial), strict=True
    ):
        cells = re.findall(r"<td(?: class=[^>]*)?>(\d*)</td>", table.split("<tbody>")[1])
        assert [int(cell or 0) for cell in cells] == [count for row in matrix for count in row]


def test_warnings_stand_at_their_number(digits: Path, page: str) -> None:
    warning = "gradient masking: square broke 9 points"
    table = in_terminal(collect([digits]))
    assert all(warning in text for text in (table, page, markdown.render(collect([digits]))))
    (line,) = (line for line in table.splitlines() if line.rstrip().endswith("(1)"))
    assert "pgd" in line
    assert "linf 0.1" in line


def test_an_attack_that_left_the_threat_is_no_number(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    part = PartRecord(
        name="bad",
        options={},
        attacked=300,
        broken=0,
        seconds=1,
        forwards=1,
        backwards=1,
        rejected=7,
    )
    write_eval(folder, "bad", parts=["bad"], shown=0)
    record, points = write_eval(folder, "bad2", shown=0)
    broken = record.model_copy(update={"parts": (part,)})
    broken.write(folder.evaluations / f"{record.stem}.json")
    points = type(points)(**vars(points) | {"broken_by": np.minimum(points.broken_by, 0)})
    points.write(folder.evaluations / f"{record.stem}.npz")
    run = one(folder)
    chosen = summary.headline(run)
    assert chosen is not None
    assert chosen.record.attack["name"] == "bad"
    assert measures.worst_cases(run.evaluations) == []
    for text in everywhere([run]):
        assert "'bad' is broken: 7 of its proposals lay outside the threat" in text


def test_what_is_not_there_yet_is_said(tmp_path: Path) -> None:
    unfinished = write_run(tmp_path / "unfinished", finished=False, epochs_done=3)
    stopped = write_run(tmp_path / "stopped", epochs_done=2, stopped="loss is NaN; try a lower lr")
    (stopped.evaluations / "autoattack-linf-0.1-0123abcd.partial").mkdir(parents=True)
    begun = RunFolder(tmp_path / "begun")
    begun.path.mkdir()
    begun.recipe.write_text('title = "Only begun"\n')
    runs = collect([unfinished.path, stopped.path, begun.path])
    for text in everywhere(runs):
        assert text.count("Not evaluated yet.") == 3
        assert "Training is unfinished: 3 of 8 epochs done." in text
        assert "Training stopped after 2 of 8 epochs: loss is NaN; try a lower lr" in text
        assert "autoattack-linf-0.1-0123abcd" in text
    assert runs[2].title == "Only begun"


def test_diverged_training_and_a_single_epoch_are_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", epochs=1)
    line = folder.metrics.read_text()
    folder.metrics.write_text(line + re.sub(r'"loss":[^,]*', '"loss":NaN', line))
    assert "nan" in Page(html.render([one(folder)])).text


@pytest.mark.parametrize("eps", [0.1, math.inf])
@pytest.mark.parametrize("n", [30, 1])
def test_no_clean_correct_point_is_shown_as_none(tmp_path: Path, eps: float, n: int) -> None:
    folder = RunFolder(tmp_path / "eval-model-1234")
    write_eval(folder, eps=eps, n=n, clean_share=0.0, shown=0)
    for text in everywhere([one(folder)]):
        assert ("0.0 % [" if math.isfinite(eps) else "median size of no point") in text


def test_one_class_and_no_gallery(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "eval-model")
    record, _ = write_eval(folder, classes=["only " * 60], clean_share=1.0, shown=0)
    empty = np.zeros((0,), np.float32)
    Gallery(*(empty for _ in range(6))).write(folder.gallery(record.stem))
    assert one(folder).evaluations[0].gallery is None
    assert "Figure" in html.render([one(folder)])


def test_runs_side_by_side_come_with_a_paired_test(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second")
    _, strong = write_eval(first, shown=0)
    _, weak = write_eval(second, shown=0, strength=2.0)
    runs = collect([first.path, second.path])
    found = compare(runs)
    only = int((strong.robust & ~weak.robust).sum())
    assert only > 0
    assert f"only first withstands {only} points, only second 0" in found.notes[0]
    for text in everywhere(runs):
        assert "McNemar" in text
    assert html.render(runs).index("compared") < html.render(runs).index("Policy gradient")
    assert html.render(runs).count(" best") >= 1


def test_runs_on_other_points_are_not_passed_off_as_comparable(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second")
    write_eval(first, shown=0)
    write_eval(second, shown=0, n=100)
    for text in everywhere(collect([first.path, second.path])):
        assert "autoattack linf 0.1 was not measured on the same points in every run." in text


def test_attacks_of_other_options_do_not_share_a_column(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second")
    write_eval(first, "pgd", shown=0, options={"steps": 10})
    write_eval(second, "pgd", shown=0, options={"steps": 40})
    found = compare(collect([first.path, second.path]))
    assert [c.name for c in found.columns] == ["pgd linf 0.1 (steps=10)", "pgd linf 0.1 (steps=40)"]
    assert [c.cell(0) is None for c in found.columns] == [False, True]


def test_the_terminal_fits_80_columns(digits: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / ("a-very-long-name-" * 3))
    write_eval(other, "autoattack", eps=8 / 255, shown=0, warnings=("masking " * 20,))
    write_eval(other, "an-attack-of-a-very-long-name", eps=0.1, shown=0)
    shown = in_terminal(collect([digits, other.path]))
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "…" not in shown
    assert re.search(r"autoattack +linf 0.1 +360 +95.0 % +65.3 % \[60.2, 70.0\]", shown)
    assert re.search(r"linf 0.1 .* 68.3 % \[63.4, 72.9\] \(1\)", shown)


def test_markdown_tables_keep_their_columns(digits: Path) -> None:
    width = 0
    for line in markdown.render(collect([digits])).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line))
        assert not (cells and width) or cells == width
        width = cells


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / side / "run").path for side in "ab"]
    assert [run.name for run in collect(folders)] == [str(folder) for folder in folders]
    assert len(collect([folders[0], folders[0]])) == 1


def test_a_folder_that_is_no_run_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write_run(tmp_path / "digits-pg")
    with pytest.raises(
        BadValueError, match=r"digit-pg' is no run folder; did you mean .*digits-pg'"
    ):
        collect([tmp_path / "digit-pg"])
    with pytest.raises(BadValueError, match=r"is no run folder; did you mean .*digits-pg'"):
        collect([tmp_path])
    with pytest.raises(BadValueError, match=r"run\.json' is no run folder; .*digits-pg"):
        collect([tmp_path / "digits-pg" / "run.json"])


def refused(folder: RunFolder) -> str:
    with pytest.raises(BadValueError) as caught:
        collect([folder.path])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "recipe.toml"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run")
    path = folder.path / name
    path.write_bytes(path.read_bytes()[:-40])
    if name != "recipe.toml":
        assert str(path) in refused(folder)
    path.write_bytes(b"\xff\xfe{")
    assert str(path) in refused(folder)


@pytest.mark.parametrize("ending", [".json", ".npz", ".gallery.npz"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keep=st.floats(0, 0.98), junk=st.binary(max_size=20))
def test_truncated_files_are_named(tmp_path: Path, ending: str, keep: float, junk: bytes) -> None:
    folder = RunFolder(tmp_path / "run")
    record, _ = write_eval(folder, n=20, shown=2)
    path = folder.evaluations / f"{record.stem}{ending}"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))] + junk)
    assert str(path) in refused(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": np.full(360, 10)}, "'labels' reaches beyond"),
        ({"broken_by": np.full(360, 4)}, "'broken_by' reaches beyond"),
        ({"robust": np.zeros(360, bool)}, "disagree on the"),
        ({"sizes": np.zeros(3)}, "'sizes' is not a number for each of the record's 360 points"),
        ({"ids": np.full(360, "x")}, "'ids' is not a number"),
        ({"labels": None}, "its arrays are not"),
    ],
)
def test_points_that_do_not_fit_their_record_are_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    record, points = write_eval(folder, shown=0)
    arrays = {k: v for k, v in (vars(points) | change).items() if v is not None}
    np.savez(folder.evaluations / f"{record.stem}.npz", **arrays)
    assert reason in refused(folder)


def test_a_confusion_matrix_of_other_classes_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_eval(folder, shown=0, confusion_clean=((1, 2), (3, 4)))
    assert "a confusion matrix is not of 10 classes" in refused(folder)
