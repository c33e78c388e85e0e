"""The reports on engines, as people open them: on a desk's screen and on a phone, in light and dark."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from trt_build.parity import Check, ImageParity, ParityReport, TowerParity
from trt_build.reports import BuildReport, LayerReport
from worker.html_report.pages import render
from worker.scoring.engine_record import BatchProfile, EngineRecord, Target
from worker.scoring.manifest import FileSpec, ParityLimits

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DIGEST = "sha256:" + 64 * "a"


def parity() -> str:
    report = ParityReport(
        schema="sluice.parity/1", passed=False, engine=64 * "b", engine_name="tensorrt-rtx-sm120-int8",
        reference="torch bf16", model=DIGEST, policy=DIGEST, made_at=NOW,
        checks=(
            Check(name="largest score error", found=0.4, limit=0.1, passed=False),
            Check(name="share of images routed elsewhere", found=0.0, limit=0.02, passed=True),
        ),
        towers=(TowerParity(tower="coarse", max_error=1.1, mean_error=0.1, min_cosine=0.9),),
        images=(
            ImageParity(name=f"{'n' * 90}.jpg, blur", reference=2.7, engine=2.3, reference_route="pass",
                        engine_route="review quality"),
        ),
        reference_images_per_second=5.5, engine_images_per_second=48.3,
    )  # fmt: skip
    return render("trt_build", "parity.html.j2", report=report, moved=report.moved(ParityLimits()), rest=[])


def build() -> str:
    record = EngineRecord(
        schema="sluice.engine/1", target=Target(backend="openvino", precision="int8"),
        backend_version="2026.4.1-22982-e213a147257-releases/2026/4", model=DIGEST, profile=BatchProfile(),
        files=(FileSpec(path="towers.xml", sha256=64 * "c"),), bytes=4_587_936, built_at=NOW, build_seconds=28.3,
    )  # fmt: skip
    layer = LayerReport(name="/towers/" + "block/" * 20, kind="Convolution", precision="u8", shapes=("[5,32,112,112]",))
    return render(
        "trt_build",
        "build.html.j2",
        report=BuildReport(
            schema="sluice.build-report/1", record=record, layers_of="engine", layers=(layer,), device_memory_bytes=None
        ),
    )


CONTRAST = """element => {
  const bright = colour => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(level => level / 255)
      .map(level => level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const sheet = document.createElement("div");
  sheet.style.backgroundColor = "Canvas";
  document.body.append(sheet);
  const pair = [getComputedStyle(element).color, getComputedStyle(sheet).backgroundColor].map(bright);
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""
"""WCAG's contrast of an element's text with the page."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", [parity, build])
def test_a_report_fits_a_phone_and_can_be_read(
    chromium: Browser, tmp_path: Path, page: Callable[[], str], scheme: Literal["light", "dark"]
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page())
    shown = chromium.new_page(color_scheme=scheme, viewport={"width": 390, "height": 800})
    shown.goto(file.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    for marked in shown.locator(".bad, .good").all():
        assert marked.evaluate(CONTRAST) >= 4.5
    assert shown.locator("th:first-child").first.evaluate("cell => cell.clientWidth") > 60
    shown.close()
