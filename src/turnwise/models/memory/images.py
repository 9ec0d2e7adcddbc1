"""What an image shows, as features."""

from __future__ import annotations

import math

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from turnwise.envs.protocol import Image
from turnwise.models.memory.standardiser import Standardiser

SHORT = 10
"""pixels of a side, from which on convolutions halve an image no more"""


class ImageEncoder(nn.Module):
    """An image as D features: convolutions of 3 x 3 pixels that halve it until its sides are short.

    Pixels are brought from their bounds to 0 to 1, and may be standardised by channel. A large image is
    halved at once, since its first layers cost most; a small one keeps its places.
    """

    def __init__(self, image: Image, width: int, standardised: Standardiser | None):
        super().__init__()
        self.image, self.standardised = image, standardised
        layers: list[nn.Module] = []
        (height, wide), channels = image.sides, image.channels
        for i, out in enumerate((16, 32, 32, 32, 32, 32)):
            halved = max(height, wide) > SHORT
            if i > 1 and not halved:
                break
            layers += [nn.Conv2d(channels, out, 3, 1 + halved, 1), nn.ReLU()]
            channels = out
            height, wide = ((x + 1) // 2 if halved else x for x in (height, wide))
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * wide, width))

    def forward(self, x: Shaped[Tensor, "*N d"]) -> Float[Tensor, "*N D"]:
        """Features of the image in vectors [..., d]."""
        pixels = self.pixels(x)  # [M, H, W, C]
        if self.standardised is not None:
            pixels = self.standardised(pixels)
        return self.layers(pixels.movedim(-1, 1)).reshape(*x.shape[:-1], -1)

    def update_(self, x: Shaped[Tensor, "M d"]) -> None:
        """Show images to what standardises them."""
        if self.standardised is not None:
            self.standardised.update_(self.pixels(x).flatten(0, -2))

    def pixels(self, x: Shaped[Tensor, "*N d"]) -> Float[Tensor, "M H W C"]:
        """Images out of vectors, their pixels from 0 to 1 if they have bounds; frames are channels."""
        image = self.image
        part = x[..., image.at : image.at + math.prod(image.shape)]
        like = next(self.layers.parameters())
        found = part.to(like.dtype).reshape(-1, *image.shape)
        if math.isfinite(image.high - image.low) and image.high > image.low:
            found = (found - image.low) / (image.high - image.low)
        if len(image.shape) == 2:
            return found.unsqueeze(-1)
        if not image.channels_last:
            found = found.movedim(-3, -1)  # [M, (frames,) H, W, C]
        if len(image.shape) == 4:
            found = found.movedim(1, -1).flatten(-2)  # frames beside channels
        return found
