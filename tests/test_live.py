"""The live page: its script trains in a browser as the package does."""

import json
import re

import pytest
import torch
from conftest import ROOT, parameter_cell

from llbook.data.teacher import Labelled
from llbook.experiments.live import (
    GRID,
    REACH,
    LiveConfig,
    build_task,
    compare,
    plane_examples,
)
from llbook.figures import live as figures
from llbook.measures.objective import acceleration_ratio
from llbook.publish.profiles import PROFILES, overrides

STATIC = ROOT / "book" / "_static"
CONFIG = LiveConfig()
DATA = plane_examples(CONFIG)


def element(config=CONFIG, data=DATA):
    task = build_task(config, data.training, data.desired)
    return figures.live(config, data.training, data.desired, task, name="live").data


@pytest.fixture(params=["in a worker", "in the page"])
def tab(request, chromium, tmp_path):
    """A page from disk with the element alone, with and without workers."""
    # as in the site, in no certain order
    names = ("live", "explorer") if request.param == "in a worker" else ("explorer", "live")
    scripts = "".join(f'<script src="{STATIC / name}.js"></script>' for name in names)
    style = f'<link rel="stylesheet" href="{STATIC / "explorer.css"}">'
    file = tmp_path / "live.html"
    file.write_text(
        f'<!doctype html><meta charset="utf-8">{style}{scripts}<article class="bd-article">{element()}</article>',
        encoding="utf-8",
    )
    page = chromium.new_page(viewport={"width": 1000, "height": 900})
    page.heard = []
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    if request.param == "in the page":
        page.add_init_script("delete window.Worker")
    page.goto(file.as_uri())
    settle(page)
    yield page
    assert page.heard == []
    page.close()


def settle(page):
    """Wait for the training of what is shown."""
    page.wait_for_function(
        "!document.querySelector('#live').ariaBusy && document.querySelector('[data-policy]')"
    )


def examples(page):
    """What the page shows as its training examples."""
    places = page.eval_on_selector_all(
        ".live-point",
        "all => all.map(p => [p.dataset.x, p.dataset.y, p.dataset.label].map(Number))",
    )
    shown = torch.tensor(places, dtype=torch.float64)
    return Labelled(shown[:, :2], shown[:, 2])


def check_numbers(page):
    """Area, last loss, AR and weights of each policy against the package's, on what is shown."""
    expected = compare(CONFIG, build_task(CONFIG, examples(page), DATA.desired))
    for name, (policy, losses) in expected.items():
        row = page.locator(f"[data-policy={name}] td")
        area, last, ar = (cell.get_attribute("data-value") for cell in row.all())
        assert float(area) == pytest.approx(float(losses[1:].sum()), rel=1e-6)
        assert float(last) == pytest.approx(float(losses[-1]), rel=1e-6)
        speed = acceleration_ratio(losses, expected["equal"].losses)
        assert float("nan" if ar == "null" else ar) == pytest.approx(speed, nan_ok=True)
        page.locator(f"input[value={name}]").check()
        weights = page.eval_on_selector_all(
            ".live-point", "all => all.map(p => Number(p.dataset.weight))"
        )
        assert weights == pytest.approx((policy.mean(0) * CONFIG.size).tolist(), abs=1e-4)
    return expected


def test_page_has_the_numbers_of_the_package(tab):
    torch.testing.assert_close(examples(tab).inputs, DATA.training.inputs)
    first = check_numbers(tab)
    assert first["searched"].area < first["greedy"].area < first["equal"].area

    point = tab.locator(".live-point").nth(3)
    before = examples(tab)
    box = point.locator(".grip").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 30, y - 50, steps=5)
    tab.mouse.up()
    settle(tab)
    dragged = examples(tab)
    assert (dragged.inputs != before.inputs).any(1).nonzero().flatten().tolist() == [3]
    torch.testing.assert_close(dragged.labels, before.labels)
    second = check_numbers(tab)
    assert second["equal"].area != first["equal"].area

    tab.locator(".live-point").nth(5).locator(".grip").click()
    settle(tab)
    flipped = examples(tab)
    assert (flipped.labels != dragged.labels).nonzero().flatten().tolist() == [5]
    torch.testing.assert_close(flipped.inputs, dragged.inputs)
    assert check_numbers(tab)["equal"].area != second["equal"].area

    tab.get_by_role("button", name="Back to the start").click()
    settle(tab)
    torch.testing.assert_close(examples(tab).inputs, DATA.training.inputs)
    torch.testing.assert_close(examples(tab).labels, DATA.training.labels)


def test_keyboard_moves_and_relabels_and_nothing_leaves_the_plane(tab):
    point = tab.locator(".live-point").nth(2)
    x, y = DATA.training.inputs[2].tolist()
    point.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Shift+ArrowUp")
    settle(tab)
    assert examples(tab).inputs[2].tolist() == pytest.approx([x + 0.1, y + 0.5])
    said = tab.locator("[role=status]").text_content()
    assert said.startswith("Example 3, label") and "searched" in said
    label = examples(tab).labels[2]
    for key in ("Enter", "Space"):
        tab.keyboard.press(key)
        label = -label
        assert examples(tab).labels[2] == label
    for _ in range(20):
        tab.keyboard.press("Shift+ArrowLeft")
    settle(tab)
    assert examples(tab).inputs[2, 0] == -REACH
    assert f"at −{REACH}.00" in point.get_attribute("aria-label")
    box = point.locator(".grip").bounding_box()
    tab.mouse.move(box["x"] + 5, box["y"] + 5)
    tab.mouse.down()
    tab.mouse.move(2, 2)
    tab.mouse.up()
    settle(tab)
    assert examples(tab).inputs[2].tolist() == [-REACH, REACH]
    check_numbers(tab)


def test_slider_shows_the_weights_of_a_step(tab):
    tab.locator("input[value=greedy]").check()
    tab.locator("#live-step").focus()
    tab.keyboard.press("Home")
    weights = tab.eval_on_selector_all(
        ".live-point", "all => all.map(p => Number(p.dataset.weight))"
    )
    task = build_task(CONFIG, DATA.training, DATA.desired)
    expected = compare(CONFIG, task)["greedy"].policy[0] * CONFIG.size
    assert weights == pytest.approx(expected.tolist())


def test_examples_lie_on_the_grid_of_the_page():
    data = json.loads(re.search(r"<script[^>]*>(.*)</script>", element(), re.DOTALL)[1])
    inputs = torch.tensor(data["inputs"], dtype=torch.float64)
    assert torch.equal(inputs, DATA.training.inputs)
    assert torch.equal((inputs * GRID).round() / GRID, inputs) and inputs.abs().max() <= REACH
    assert data["initial"] == build_task(CONFIG, DATA.training, DATA.desired).initial.tolist()


def test_still_shows_examples_and_curves():
    trained = compare(CONFIG, build_task(CONFIG, DATA.training, DATA.desired))
    left, right = figures.still(DATA.training, DATA.desired, trained).axes
    assert [line.get_label() for line in right.lines] == ["equal weights", "greedy", "searched"]
    # desired, weights and examples of either label
    assert len(left.collections) == 6


def test_parameters_of_the_page():
    cell = parameter_cell("live")
    assert {name: default for name, (_, default, _) in cell.items()} == LiveConfig().flat()
    for profile in PROFILES:
        LiveConfig.from_flat(overrides(profile, "live"))
