import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from cbsn.evaluation.report import html as report_html
from cbsn.evaluation.report.html import VALIDATION, draw_chart, mark_best, read_curves, write_report
from cbsn.evaluation.report.pictures import LONGEST, ReportPicture
from cbsn.training.logging import Reporter

HOSTILE = """</script><script>alert("1")</script> & 'ünï' <b onclick="x">"""


class _Page(html.parser.HTMLParser):
    """What a browser would find: the tags, and the text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._raw = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        self.text += "" if self._raw else data

    def images(self):
        """By alternative text, the pixels of every image."""
        found = {}
        for tag, attributes in self.tags:
            if tag == "img" and attributes.get("class") != "chart":
                kind, _, data = attributes["src"].partition(",")
                assert kind == "data:image/webp;base64"
                image = Image.open(io.BytesIO(base64.b64decode(data)))
                found.setdefault(attributes["alt"], []).append(np.asarray(image))
        return found

    def charts(self):
        """The SVG files of the charts."""
        shown = [attributes for _, attributes in self.tags if attributes.get("class") == "chart"]
        parts = [attributes["src"].partition(",") for attributes in shown]
        assert {kind for kind, *_ in parts} <= {"data:image/svg+xml;base64"}
        return [base64.b64decode(data).decode() for *_, data in parts]


@pytest.fixture
def page(tmp_path):
    def write(content):
        write_report(tmp_path / "report.html", content)
        return _Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return write


def test_all_parts_are_there(page, make_content, make_picture, tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "blind": 2, "validation_psnr": 30}\n{"step": 2, "blind": 1}\n{"st')
    picture = make_picture((96, 80))
    found = page(make_content(picture, curves={"first": log, "second": tmp_path / "none"}))
    for text in ("Two denoisers", "1 picture of a ramp", "It is white.", "96", "32.04 dB, SSIM .9"):
        assert text in found.text
    assert f"{tmp_path}/none: No such file" in found.text
    classes = [attributes.get("class", "") for _, attributes in found.tags]
    assert classes.count("number best") == 2
    losses, validation = found.charts()
    assert "<!-- blind -->" in losses and "<!-- PSNR in dB -->" in validation
    images = found.images()
    np.testing.assert_array_equal(images["noisy"][0], picture.noisy)
    np.testing.assert_array_equal(images["clean"][0], picture.clean)
    assert {len(images[f"{side}, detail"]) for side in ("noisy", "first", "second", "clean")} == {1}
    assert images["first, detail"][0].shape == (64, 64, 3)
    assert all(
        f"{kind} of {m}" in images for kind in ("error", "residual") for m in picture.denoised
    )


def test_without_a_clean_picture_there_are_residuals_alone(page, make_content, make_picture):
    found = page(make_content(make_picture(clean=False)))
    assert "clean" not in found.images() and "error of first" not in found.images()
    assert "residual of first" in found.images()
    assert "removed the most structure" in found.text


def test_it_needs_nothing_else_and_holds_each_image_once(tmp_path, make_content, make_picture):
    write_report(tmp_path / "report.html", make_content(make_picture(), make_picture((70, 90))))
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|\burl\(|<link|src=\"(?!data:)", text)
    images = re.findall(r"data:image/[^\"')\s]+", text)
    assert len(images) == 2 * (4 + 4 + 4) == len(set(images))


def test_hostile_names_stay_text(page, make_content, make_picture, tmp_path):
    pixels = make_picture().noisy
    picture = ReportPicture(HOSTILE, pixels, {HOSTILE: pixels}, pixels, {HOSTILE: HOSTILE})
    found = page(
        make_content(
            picture,
            picture,
            title=HOSTILE,
            facts=[HOSTILE],
            table=[{HOSTILE: HOSTILE, "PSNR": HOSTILE}] * 2,
            notes={HOSTILE: [HOSTILE]},
            curves={HOSTILE: tmp_path / "none"},
        )
    )
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert not [tag for tag, attributes in found.tags if tag == "b" or "onclick" in attributes]
    # Title twice, fact, heading, three cells, note and its heading, run, and in each of the two
    # pictures: link, name, three choices and chips, caption and so on.
    assert found.text.count(HOSTILE) > 20
    assert HOSTILE in found.images()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (8, 8)])
def test_small_gray_and_deep_pictures(page, make_content, make_picture, size, channels, dtype):
    picture = make_picture(size, channels, dtype)
    images = page(make_content(picture)).images()
    assert len(images) == 4 + 4 + 4
    for found in images.values():
        assert found[0].shape[:2] == size and found[0].dtype == np.uint8


def test_lines_with_breaks_are_tables(page, make_content):
    found = page(make_content(notes={"noise": ["a  b\n1  2", "words"]}))
    assert "a  b\n1  2" in found.text
    assert [tag for tag, _ in found.tags].count("pre") == 1


def test_large_pictures_are_reduced_but_for_the_details(page, make_content, make_picture):
    picture = make_picture((20, LONGEST + 100), channels=1)
    found = page(make_content(picture))
    assert f"{LONGEST + 100} × 20 px; shown at {LONGEST} × 18 px" in found.text
    images = found.images()
    assert {images[name][0].shape for name in ("noisy", "error of first", "residual of first")} == {
        (18, LONGEST, 3)  # WebP has no gray
    }
    assert images["noisy, detail"][0].shape == (20, 64, 3)
    assert "reduced" not in page(make_content(make_picture((20, LONGEST)))).text


def test_an_empty_report(page, make_content):
    found = page(make_content(facts=[], table=[], notes={}))
    assert [tag for tag, _ in found.tags].count("h1") == 1
    assert not found.images() and "Pictures" not in found.text and "Scores" not in found.text


def test_a_report_is_whole_or_not_there(tmp_path, make_content, make_picture, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(picture):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_html, "error_maps", fail)
    with pytest.raises(OSError, match="No space"):
        write_report(path, make_content(make_picture()))
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
    with pytest.raises(OSError, match="No such file"):
        write_report(tmp_path / "none" / "report.html", make_content())


def _best(*columns):
    rows = [dict(row) for row in zip(*([(h, t) for t in ts] for h, ts in columns), strict=True)]
    return [[text for text, best in row if best] for row in mark_best(rows)]


def test_the_best_of_each_metric_is_marked():
    assert _best(
        ("method", ["1", "2", "3"]),
        ("PSNR", ["9.5", "30.10", "inf"]),
        ("SSIM (2 of 3)", ["0.9", "0.9", "0.8"]),
        ("SI-PSNR", ["30.1", "31.5", "30.2"]),
        ("MicroSSIM (2 of 3)", ["0.7", "0.6", "0.5"]),
        ("LPIPS", ["0.25", "nan", "–"]),
        ("s/image", ["1", "2", "3"]),
    ) == [["0.9", "0.7"], ["0.9", "31.5"], ["inf"]]
    assert _best(("LPIPS (1 of 3)", ["0.3", "0.2", "1,000"])) == [[], ["0.2"], []]


def test_a_method_alone_is_not_the_best():
    assert _best(("method", ["a"]), ("PSNR", ["30"])) == [[]]


def test_a_line_goes_from_edge_to_edge():
    (axes,) = draw_chart("loss", {"blind": [(100, 2), (200, 1)]}, (100, 200)).axes
    assert (axes.get_ylabel(), axes.get_xlim(), axes.get_yscale()) == ("loss", (100, 200), "linear")
    (line,) = axes.lines
    assert [*zip(*line.get_data(), strict=True)] == [(100, 2), (200, 1)]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["blind"]


def test_values_far_apart_are_on_a_log_scale():
    curves = {"a": [(0, 1), (10, 0.1)], "b": [(0, 0.01)]}
    (axes,) = draw_chart("loss", curves, (0, 10)).axes
    assert (axes.get_ylabel(), axes.get_yscale()) == ("loss, log scale", "log")
    (axes,) = draw_chart("loss", {"a": [(0, -1), (1, 900)]}, (0, 1)).axes
    assert (axes.get_ylabel(), axes.get_yscale()) == ("loss", "linear")


@pytest.mark.parametrize("value", [0, -3.5, 1e-12, 1e12])
def test_a_single_point_is_drawn(value):
    (axes,) = draw_chart("loss", {"a": [(7, value)]}, (7, 7)).axes
    (line,) = axes.lines
    (x,), (y,) = line.get_data()
    assert (x, y, line.get_marker(), [*axes.get_xticks()]) == (7, value, "o", [7])
    low, high = axes.get_ylim()
    assert low < value < high


def test_long_curves_are_thinned():
    (axes,) = draw_chart("loss", {"a": [(i, i % 2) for i in range(10_000)]}, (0, 9999)).axes
    steps, values = axes.lines[0].get_data()
    assert len(steps) == 300 and np.ptp(values) < 0.05  # means of runs of about 33 zeros and ones


def test_steps_are_whole():
    (axes,) = draw_chart("loss", {"a": [(1, 1), (2, 2)]}, (1, 2)).axes
    assert [*axes.get_xticks()] == [1, 2]


def test_dollar_signs_are_no_formula(page, make_content, tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "a$b$": 2}\n{"step": 2, "a$b$": 1}')
    (chart,) = page(make_content(curves={"run": log})).charts()
    assert "<!-- a$b$ -->" in chart


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "metrics.jsonl"
        path.write_text("\n".join(map(str, lines)))
        return path

    return write


def test_broken_lines_and_values_are_left_out(write):
    path = write(
        '{"step": 20, "total": 3, "blind": 2, "skipped_steps": 0}',
        '{"step": 10, "total": 4.5, "blind": null, "validation_psnr": 30.5}',
        '{"step": 30, "total": NaN, "blind": Infinity, "self": "2", "kind": true}',
        '{"step": null, "total": 7}',
        '{"total": 8}',
        f'{{"step": 40, "total": 1{"0" * 400}}}',
        "[1, 2]",
        "12",
        "",
        '{"step": 50, "tot',
    )
    assert read_curves(path) == {
        "total": [(10, 4.5), (20, 3)],
        "blind": [(20, 2)],
        VALIDATION: [(10, 30.5)],
    }


def test_bytes_that_are_no_text_do_no_harm(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "blind": 2}\n\xff\xfe\x00{"step"')
    assert read_curves(path) == {"blind": [(1, 2)]}


def test_a_total_of_one_term_is_not_shown_twice(write):
    lines = [json.dumps({"step": i, "total": i / 2, "blind": i / 2}) for i in range(3)]
    assert [*read_curves(write(*lines))] == ["blind"]


def test_what_a_run_writes_holds_no_other_names(tmp_path):
    """Should the reporter write something new, it must be said whether it is a loss."""
    reporter = Reporter(tmp_path, 0, batch_size=1)
    reporter.validation(1, 30.0, [])
    metrics = {"total": 3, "blind": 2, "learning_rate": 1e-3, "skipped": 0, "stop": 0}
    reporter.log(1, metrics, skipped=0, bad_records=0)
    reporter.close()
    assert [*read_curves(tmp_path / "metrics.jsonl")] == ["total", "blind", VALIDATION]


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_curves(tmp_path / "metrics.jsonl")
