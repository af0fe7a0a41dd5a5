"""Rendered images of all kinds are drawn, or left out with a sentence."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lit_crl.core.checks import ConfigError
from lit_crl.runs.dashboard.callback import Dashboard
from lit_crl.runs.pictures.rendered import as_picture, of_one_size

RED = np.full((5, 7, 3), (200, 0, 0), np.uint8)
GRAY = np.full((5, 7), 51, np.uint8)


@pytest.mark.parametrize(
    ("rendered", "pixel"),
    [
        (RED, (200, 0, 0)),
        (GRAY, (51, 51, 51)),
        (GRAY[..., None], (51, 51, 51)),
        (GRAY / 255, (51, 51, 51)),
        (RED.astype(np.float32), (200, 0, 0)),
        (RED.astype(np.int64), (200, 0, 0)),
        (GRAY > 50, (255, 255, 255)),
        ([GRAY, RED], (200, 0, 0)),
        (np.concatenate((RED, GRAY[..., None]), axis=2), (244, 204, 204)),  # alpha is a fifth
        (RED.tolist(), (200, 0, 0)),
    ],
    ids=["rgb", "gray", "one channel", "floats to 1", "floats to 255", "integers", "bools",
         "list of images", "alpha", "nested lists"],
)  # fmt: skip
def test_every_kind_of_image_is_drawn(rendered: Any, pixel: tuple[int, int, int]) -> None:
    picture = as_picture(rendered)
    assert picture.dtype == np.uint8 and picture.shape == (5, 7, 3)
    assert (picture == pixel).all()


@pytest.mark.parametrize(
    ("rendered", "named"),
    [
        (None, "nothing"),
        ("human", "str"),
        ([], "list"),
        (np.zeros((3, 5, 7), np.uint8), r"ndarray of the shape \[3, 5, 7\]"),
        (np.zeros((0, 7, 3), np.uint8), r"ndarray of the shape \[0, 7, 3\]"),
        ([[1, 2], [3]], "list"),
    ],
)
def test_what_is_no_image_is_named(rendered: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"render\(\) gave {named}, but a picture has"):
        as_picture(rendered)


def test_smaller_pictures_get_a_rim() -> None:
    framed = of_one_size([RED, RED[:3, :2]])
    assert framed.shape == (2, 5, 7, 3)
    assert (framed[1, :3, :2] == RED[:3, :2]).all()
    assert (framed[1, 3:] == 255).all() and (framed[1, :, 2:] == 255).all()


@pytest.mark.parametrize("error", [OSError("disk full"), ConfigError("X cannot be drawn")])
def test_what_a_dashboard_cannot_show_is_said_once(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def conclude(self, *_: Any) -> None:
            raise error

    report: Any = SimpleNamespace(summary={"env_steps": 1})
    dashboard = Dashboard(Broken(), report)  # type: ignore[arg-type]
    for _ in range(2):
        dashboard.conclude(Path("nowhere"))
    assert capsys.readouterr().out.count("The dashboard shows no summary: ") == 1
