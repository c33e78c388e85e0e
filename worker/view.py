"""A view: what a model asks to see of an image."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Channel = Annotated[float, Field(ge=-10, le=10)]


class ViewSpec(BaseModel):
    """How pixels become one input of the engine.

    `resize`: `shortest_side` scales so that the shorter side is `size` (as CLIP does), `squash` scales both sides to
    `size`, `none` keeps native pixels. Then `crops` square windows of `size` are taken: `center` (one), or `grid`
    (spread evenly over the whole image, in reading order; an image smaller than a window is first scaled up to it).
    `mean` and `std` normalise channel values of 0..1; they are applied inside the engine, which takes uint8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=16, le=2048)]
    resize: Literal["shortest_side", "squash", "none"]
    crop: Literal["center", "grid"] = "center"
    crops: Annotated[int, Field(ge=1, le=64)] = 1
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[Channel, Channel, Channel]
    std: tuple[Channel, Channel, Channel]

    @model_validator(mode="after")
    def _one_center(self) -> Self:
        if self.crop == "center" and self.crops != 1:
            raise ValueError(f"crop: center takes one window, and crops is {self.crops}: ask for a grid")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's uint8 array: (H, W, 3), or (crops, H, W, 3) for more than one crop."""
        square = (self.size, self.size, 3)
        return square if self.crops == 1 else (self.crops, *square)
