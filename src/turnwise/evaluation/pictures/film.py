"""Pictures of an episode as a film: an animated GIF, which every browser plays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from turnwise.run.errors import InputError
from turnwise.run.files.whole import whole_file

HOLD = 1.0
"""seconds for which the last picture stands before the film begins again"""


def write_film(frames: Sequence[np.ndarray], path: Path, fps: float) -> None:
    """Write pictures [height, width, 3] uint8 as an animated GIF, `fps` of them a second.

    InputError for what is no picture, and for pictures of several sizes. A GIF counts hundredths of a second.
    """
    from PIL import Image

    if not frames:
        raise InputError(f"{path}: there is no picture to write; expected one at least")
    for frame in frames:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != frames[0].shape:
            raise InputError(
                f"{path}: a picture has the shape {frame.shape}; expected (height, width, 3) for all of them"
            )
    pictures = [Image.fromarray(np.asarray(frame, np.uint8)) for frame in frames]
    # Rounded as a whole, so that a film of many pictures takes the time that it should.
    times = np.rint(np.arange(len(pictures) + 1) * 100 / fps).astype(int)
    each = [max(2, int(t)) * 10 for t in np.diff(times)]  # players take less than 20 ms for 100
    each[-1] += int(1000 * HOLD)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        pictures[0].save(
            part,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=each,
            loop=0,
            optimize=True,
        )
