"""The page without a browser: what is on it, what must not be, and the pictures it is made of."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from scorescope import charts, claims, report
from scorescope import results as results_module
from scorescope.cli import main
from scorescope.report import gallery, scrubber
from scorescope.report.figures import static_svg
from scorescope.report.pictures import Painter, Rows, painter
from scorescope.results import provenance, row_number, with_provenance
from tests.synthetic import results as synthetic_results

ONE = ("only",)


class Page(HTMLParser):
    """Tags, addresses, scripts and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: dict[str, str] = {}
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id", "script") if tag == "script" else "style" if tag == "style" else self._inside

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data):
        if self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def three():
    return synthetic_results()


@pytest.fixture(scope="module")
def charts_of_three(three):
    return {chart.id: chart for chart in charts.available(three)}


@pytest.fixture(scope="module")
def page_of_three(three, tmp_path_factory):
    return report.write(three, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without charts: drawing them takes seconds and is tested elsewhere."""
    monkeypatch.setattr(charts, "available", lambda results: [])
    monkeypatch.setattr(report.figures, "small", lambda results, model, id: None)


# ---- the page ----


def test_the_page_of_three_models_is_light_and_asks_for_nothing(page_of_three):
    text = page_of_three.read_text()
    assert len(text.encode()) < 5_000_000
    page = Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "data", "poster", "srcset"):
            if name in attributes and tag != "use":
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:80])
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}) in page.tags
    assert "@import" not in page.scripts["style"]
    assert "url(" not in page.scripts["style"]


POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def test_every_finding_and_chart_is_on_the_page(page_of_three, three, charts_of_three):
    page = Page(page_of_three.read_text())
    for finding in claims.judge(three):
        assert finding.claim.sentence in page.text
        assert finding.claim.rule in page.text
        assert finding.judged.figure in page.text
    ids = {attributes.get("id") for _, attributes in page.tags}
    for chart in charts_of_three.values():
        if chart.id != "r_star_small":
            assert f"chart-{chart.id}" in ids
            assert all(line in page.text for line in chart.caption)
    assert claims.sentence(three, claims.judge(three)) in page.text


def test_csv_links_carry_the_numbers_drawn(page_of_three, three, charts_of_three):
    links = {a["download"]: a["href"] for tag, a in Page(page_of_three.read_text()).tags if tag == "a" and "download" in a}
    assert base64.b64decode(links["score_error_models.csv"].split(",")[1]).decode() == charts_of_three["score_error_models"].csv()
    assert json.loads(base64.b64decode(links["provenance.json"].split(",")[1])) == provenance(three)


def test_links_inside_the_page_lead_somewhere(page_of_three):
    page = Page(page_of_three.read_text())
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        if tag == "a" and attributes["href"].startswith("#"):
            assert attributes["href"][1:] in ids


def test_data_in_the_page_are_json_without_nan(page_of_three, three):
    page = Page(page_of_three.read_text())
    scrub = json.loads(page.scripts["scrub-data"], parse_constant=lambda name: pytest.fail(f"{name} in the page"))
    assert len(scrub["paths"]) == three.sizes["model"] * three.sizes["scrub"]
    json.loads(page.scripts["specs"], parse_constant=lambda name: pytest.fail(f"{name} in the page"))


def test_names_can_not_break_out_of_the_page(undrawn):
    evil = "</script><img src=x onerror=alert(1)>"
    results = synthetic_results(models=(evil,))
    record = provenance(results)
    record["bank"] |= {"name": evil, "class_names": [evil] * 10}
    page = Page(report.render(with_provenance(results, record | {"command": evil, "warnings": [evil]})))
    assert not [a for tag, a in page.tags if tag == "img" and "onerror" in a]
    assert json.loads(page.scripts["scrub-data"])["models"] == [evil]
    assert page.text.count(evil) > 3


@pytest.mark.parametrize(
    "options",
    [
        {"classes": 0},
        {"shape": (20,), "classes": 0},
        {"shape": (2,)},
        {"shape": (4, 16, 16)},
        {"shape": (3, 96, 96)},
        {"shape": (1, 400)},
        {"sample": False, "ratio_second": False},
        {"scrub_path": False, "returned": False, "overlap_distinct": False},
        {"row_index": False},
        {"r_star": False, "score_error": False, "gap_learned": False, "top_index": False, "label": False},
        {"null_row": False, "copier_row": False, "closest_pair": False, "origin_row": False},
    ],
    ids=str,
)
def test_any_shape_and_any_missing_measurement_still_make_a_page(undrawn, options):
    results = synthetic_results(models=ONE, paths=8, times=6, **options)
    page = Page(report.render(results))
    for claim in claims.every():
        if claim.about != "models":
            assert (claim.sentence in page.text) == all(name in results for name in claim.needs)


def test_what_was_not_judged_is_listed_with_its_reason(undrawn):
    results = synthetic_results(models=ONE, paths=8, times=6, gap_learned=False)
    results = with_provenance(
        results, provenance(results) | {"not_measured": {"gap_learned": "the models have no classes"}, "warnings": []}
    )
    page = Page(report.render(results))
    assert page.text.count("the models have no classes") >= 2
    assert "0 warnings" in page.text


def test_a_page_that_can_not_be_drawn_leaves_the_old_one(undrawn, tmp_path, monkeypatch):
    target = report.write(synthetic_results(models=ONE, paths=4, times=4), tmp_path / "new" / "report.html")
    before = target.read_bytes()
    monkeypatch.setattr(claims, "judge", lambda results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(synthetic_results(models=ONE, paths=4, times=4), target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_the_same_results_make_the_same_page(undrawn):
    first, second = (report.render(synthetic_results(models=ONE, paths=6, times=5)) for _ in range(2))
    assert first == second


def test_ids_of_static_charts_do_not_collide():
    svg = '<svg ><defs><clipPath id="clip0"/></defs><g clip-path="url(#clip0)"><path d="M1.23456,2L-10.98765e-3,4"/></g></svg>'
    made = static_svg(svg, "a")
    assert 'id="a-clip0"' in made
    assert "url(#a-clip0)" in made
    assert 'd="M1.2,2' in made


# ---- the command ----


def test_the_command_draws_page_and_charts_again(undrawn, tmp_path, capsys):
    results_module.save(synthetic_results(models=ONE, paths=40, times=5), tmp_path / "run" / "results.nc")
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "elsewhere" / "page.html")]) == 0
    assert "only" in (tmp_path / "elsewhere" / "page.html").read_text()
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line[0] in "●◆▲○–"]) == 3
    assert lines[3] == str(tmp_path / "elsewhere" / "page.html")
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_command_refuses_a_folder_without_results(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: no results at ")
    assert not list(tmp_path.iterdir())


# ---- pictures ----


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_stored_pixels_come_back_as_they_were():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 11), dtype=np.uint8)
    paint = Painter((3, 9, 11), -1.0, 1.0, 64)
    assert np.array_equal(decoded(paint.uri(pixels / 127.5 - 1)), np.moveaxis(pixels, 0, -1))
    assert np.array_equal(decoded(Painter((9, 11), -1.0, 1.0, 64).uri(pixels[0] / 127.5 - 1)), pixels[0])


def test_values_outside_the_range_are_cut_and_nan_is_dark():
    paint = Painter((1, 2, 2), 0.0, 1.0, 64)
    assert paint.tile(np.array([[[-5.0, 7.0], [0.5, np.nan]]])).tolist() == [[0, 255], [128, 0]]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 28, 28), "gray"),
        ((3, 8, 8), "colour"),
        ((4, 8, 8), "latent"),
        ((28, 28), "gray"),
        ((2,), "dot"),
        ((20,), "lines"),
        ((2, 500), "lines"),
    ],
)
def test_every_shape_has_its_kind_and_a_picture(shape, kind):
    paint = Painter(shape, -1.0, 1.0, 64)
    tile = paint.tile(np.random.default_rng(0).uniform(-1, 1, shape))
    assert paint.kind == kind
    assert tile.shape[:2] == paint.size[::-1]
    assert tile.min() < tile.max()
    assert bool(paint.remark) == (kind not in ("gray", "colour"))


def test_latents_show_their_first_three_channels():
    row = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8))
    paint = Painter((4, 8, 8), -1.0, 1.0, 64)
    assert np.array_equal(paint.tile(row), Painter((3, 8, 8), -1.0, 1.0, 64).tile(row[:3]))


def test_a_line_goes_up_where_values_do():
    paint = Painter((50,), 0.0, 1.0, 96)
    tile = paint.tile(np.linspace(0, 1, 50))
    dark = [int(np.argmin(tile[:, column])) for column in (10, 48, 85)]
    assert dark == sorted(dark, reverse=True)
    assert dark[0] > dark[2] + 30


def test_large_images_are_shrunk_and_keep_their_shape():
    assert Painter((3, 512, 256), -1.0, 1.0, 64).size == (32, 64)


def test_a_sprite_holds_its_tiles_in_order():
    paint = Painter((1, 2, 3), 0.0, 255.0, 64)
    rows = [[np.full((1, 2, 3), 10 * r + c) for c in range(4)] for r in range(2)]
    pixels = decoded(paint.sprite(rows))
    assert pixels.shape == (4, 12)
    assert all(np.unique(pixels[2 * r : 2 * r + 2, 3 * c : 3 * c + 3]).tolist() == [10 * r + c] for r in range(2) for c in range(4))
    assert decoded(paint.sprite(rows[:1], gap=2)).shape == (2, 18)


def test_the_range_is_the_banks_unless_the_rows_leave_it():
    results = synthetic_results(models=ONE, paths=4, times=4)
    assert (painter(results, 64).low, painter(results, 64).high) == (-1.0, 1.0)
    wide = results.assign(row_image=results["row_image"] * 10)
    assert painter(wide, 64).low < -5
    narrow = results.assign(row_image=results["row_image"] * 0.01)
    assert painter(narrow, 64).high < 0.1


# ---- gallery and scrubber ----


def test_the_gallery_starts_with_the_most_suspicious(three):
    paint = painter(three, 64)
    cards = gallery.samples(three, "large", Rows(three, paint), paint, 10)
    ratio = three["ratio_second"].sel(model="large").values
    assert [card["path"] for card in cards] == np.argsort(ratio, kind="stable")[:10].tolist()
    assert [near["index"] for near in cards[0]["near"]] == [
        str(i) for i in three["nearest_index"].sel(model="large").values[cards[0]["path"], :3]
    ]


def test_the_three_criteria_answer_yes_and_no(three):
    results = three.copy(deep=True)
    results["ratio_second"].loc[{"model": "large", "path": 3}] = 0.1
    results["ratio_calibrated"].loc[{"model": "large", "path": 3}] = 0.01
    results["copier_row"].loc[{"model": "large", "path": 3}] = int(results["nearest_index"].sel(model="large", path=3)[0])
    paint = painter(results, 64)
    cards = gallery.samples(results, "large", Rows(results, paint), paint, 24)
    assert cards[0]["path"] == 3
    answers = {criterion["name"]: criterion["answer"] for criterion in cards[0]["criteria"]}
    assert answers == {"ratio to second": "yes", "the same, plain": "no", "calibrated": "yes", "exact copy": "no", "copier's row": "yes"}
    assert {criterion["answer"] for criterion in cards[-1]["criteria"]} == {"no"}


def test_without_real_rows_the_calibrated_criterion_has_no_answer(three):
    results = three.drop_vars("null_calibrated")
    paint = painter(results, 64)
    card = gallery.samples(results, "large", Rows(results, paint), paint, 1)[0]
    assert {"calibrated": "–"}.items() <= {criterion["name"]: criterion["answer"] for criterion in card["criteria"]}.items()


def test_mirrored_rows_are_named_as_such(three):
    flipped = provenance(three)
    flipped["bank"] |= {"flips": True}
    results = with_provenance(three, flipped)
    assert row_number(results, 5017) == "17 (mirrored)"
    assert row_number(three, 17) == "17"


def test_the_scrubber_tells_the_numbers_of_its_path(three):
    paint = painter(three, 64)
    made = scrubber.data(three, Rows(three, paint), paint)
    assert made is not None
    one = next(p for p in made["paths"] if p["model"] == "medium" and p["path"] == 1)
    wanted = three.sel(model="medium", region="extrapolation", path=1)
    assert one["r_star"] == pytest.approx(wanted["r_star"].values.tolist(), rel=1e-3)
    assert one["row"] == [str(i) for i in wanted["top_index"].values]
    sprite = decoded(one["sprite"])
    assert sprite.shape == (3 * 28, 25 * 28)
    assert np.array_equal(sprite[:28, -28:], paint.tile(three["scrub_state"].sel(model="medium").values[1, -1]))
    nearest = decoded(made["nearest"])
    place = one["place"][0]
    assert np.array_equal(nearest[:, place * 28 : place * 28 + 28], paint.tile(Rows(three, paint).values(int(one["row"][0]))))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (4, 64, 64), (3, 256, 256)])
def test_sprites_stay_within_their_budget(shape):
    results = synthetic_results(paths=4, times=25, shape=shape if shape[-1] < 256 else (3, 8, 8))
    if shape[-1] == 256:
        record = provenance(results)
        record["bank"] |= {"shape": list(shape)}
        results = with_provenance(results, record)
    paint, paths = scrubber.fitting(results, painter(results, 64))
    tile = np.prod(paint.size) * (3 if shape[0] > 1 else 1)
    assert paths >= 1
    assert 3 * 25 * 3 * paths * tile <= 1.05 * scrubber.BUDGET


def test_stills_run_from_noise_to_image(three):
    paint = painter(three, 64)
    stills = scrubber.stills(three, "large", Rows(three, paint), paint)
    times = [float(still["t"]) for still in stills]
    assert len(times) == 5
    assert times == sorted(times, reverse=True)
    assert re.fullmatch(r"[\d.]+", stills[0]["numbers"]["r_star"])
