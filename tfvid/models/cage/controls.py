"""Controls of CAGE: features of chosen tiles of images, placed at chosen tiles of generated frames.

    grid = Grid(rows=16, columns=16, height=128, width=128)
    ball = Group(image=0, tiles=grid.tiles_in_box((40, 32, 63, 55)))
    controls = Controls(grid, num_frames=9)
    for frame in range(9):
        controls.move(frame, ball, dx=8 * frame, dy=0)
    features, masks = controls.arrays([features_of_image_0])

Pixels are (x, y) with the origin at the top left; tiles are (row, column).
"""

import dataclasses
import math

import numpy as np

from tfvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Grid:
    """The tiles of a frame: one for each position of the latents.

    Attributes:
      rows, columns: tiles. height, width: of the frame in pixels.
    """

    rows: int
    columns: int
    height: int
    width: int

    @property
    def tile(self):
        """(width, height) of a tile in pixels."""
        return self.width // self.columns, self.height // self.rows

    def holds(self, tile):
        """Whether a (row, column) is in the frame."""
        return 0 <= tile[0] < self.rows and 0 <= tile[1] < self.columns

    def tile_at(self, x, y):
        """The (row, column) of a pixel position; it may lie outside the frame."""
        width, height = self.tile
        return int(y // height), int(x // width)

    def corner(self, tile):
        """(x, y) of a tile's top left corner."""
        width, height = self.tile
        return tile[1] * width, tile[0] * height

    def tiles_in_box(self, box):
        """Tiles that a box (x0, y0, x1, y1) covers for at least half their area; the fullest one if there is none."""
        x0, y0, x1, y1 = box
        width, height = self.tile
        left, top = np.arange(self.columns) * width, np.arange(self.rows) * height
        across = np.clip(np.minimum(left + width, x1) - np.maximum(left, x0), 0, None) / width
        down = np.clip(np.minimum(top + height, y1) - np.maximum(top, y0), 0, None) / height
        return _chosen(down[:, None] * across)

    def tiles_of_mask(self, mask):
        """Tiles at least half of whose pixels are set in `mask` [H, W]; the fullest one if there is none."""
        width, height = self.tile
        mask = np.asarray(mask) > 0
        share = mask[: self.rows * height, : self.columns * width].reshape(self.rows, height, self.columns, width)
        return _chosen(share.mean((1, 3)))


def _chosen(share):
    """[rows, columns] covered shares -> tuple of tiles."""
    tiles = np.argwhere(share >= 0.5)
    if not len(tiles) and share.max() > 0:
        tiles = np.argwhere(share == share.max())[:1]
    return tuple((int(r), int(c)) for r, c in tiles)


@dataclasses.dataclass(frozen=True)
class Group:
    """Tiles of one image that move together.

    Attributes:
      image: number of the image.
      tiles: ((row, column), ...).
    """

    image: int
    tiles: tuple

    def anchor(self, grid):
        """Mean (x, y) of the tiles' top left corners: what a placement puts at the mouse."""
        return tuple(np.mean([grid.corner(t) for t in self.tiles], axis=0))

    def centre(self, grid):
        """(x, y) of the middle of the group."""
        x, y = self.anchor(grid)
        width, height = grid.tile
        return x + width / 2, y + height / 2


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which tile of which image lies at a tile of a frame."""

    image: int
    source: tuple


class Controls:
    """What is placed in each generated frame; later placements lie over earlier ones.

    Args:
      grid: a `Grid`.
      num_frames: frames that can hold something; the first generated one is number 0.
    """

    def __init__(self, grid, num_frames):
        self.grid = grid
        self.frames = [{} for _ in range(num_frames)]  # of {tile: Placement}

    def place(self, frame, group, x, y):
        """Puts a group's anchor at pixel (x, y), each tile where its corner comes to lie.

        This is the rule of the original's demos: a new corner is the old one + (x, y) -
        anchor, made whole towards zero. Tiles that leave the frame are left out, where
        the original wraps or fails.
        """
        anchor = group.anchor(self.grid)
        self._put(frame, group, lambda corner: tuple(int(c + p - a) for c, p, a in zip(corner, (x, y), anchor)))

    def move(self, frame, group, dx=0.0, dy=0.0):
        """Puts a group (dx, dy) pixels from where it is in its image, to the nearest tiles."""
        width, height = self.grid.tile
        across, down = math.floor(dx / width + 0.5), math.floor(dy / height + 0.5)
        self._put(frame, group, lambda corner: (corner[0] + across * width, corner[1] + down * height))

    def move_to(self, frame, group, x, y):
        """Puts the middle of a group at pixel (x, y), to the nearest tiles."""
        centre = group.centre(self.grid)
        self.move(frame, group, x - centre[0], y - centre[1])

    def clear(self, frame):
        """Leaves a frame empty."""
        self.frames[self._checked(frame)] = {}

    def _put(self, frame, group, new_corner):
        placed = self.frames[self._checked(frame)]
        for tile in group.tiles:
            x, y = new_corner(self.grid.corner(tile))
            target = self.grid.tile_at(x, y)
            if self.grid.holds(target):
                placed[target] = Placement(group.image, tile)

    def _checked(self, frame):
        if not 0 <= frame < len(self.frames):
            raise UserError(f"expected a frame from 0 to {len(self.frames) - 1}. Received: {frame}")
        return frame

    def arrays(self, features):
        """Controls as `Cage` takes them.

        Args:
          features: [h, w, d] of each image.

        Returns:
          controls [num_frames, h, w, d] and masks [num_frames, h, w, 1], float32.
        """
        shape = (len(self.frames), self.grid.rows, self.grid.columns)
        depth = np.shape(features[0])[-1] if len(features) else 0
        controls, masks = np.zeros((*shape, depth), np.float32), np.zeros((*shape, 1), np.float32)
        for f, placed in enumerate(self.frames):
            for target, placement in placed.items():
                controls[(f, *target)] = features[placement.image][placement.source]
                masks[(f, *target)] = 1
        return controls, masks

    def pictures(self, images, background=None):
        """What the controls look like: the placed tiles' pixels over a dark ground, framed in blue.

        Args:
          images: uint8 [H, W, 3] of each image.
          background: uint8 [H, W, 3] shown darkly behind, or None.

        Returns:
          uint8 [num_frames, H, W, 3].
        """
        width, height = self.grid.tile
        ground = np.full((self.grid.height, self.grid.width, 3), 24, np.uint8)
        if background is not None:
            ground = (background * 0.25).astype(np.uint8)
        pictures = np.repeat(ground[None], len(self.frames), axis=0)
        for picture, placed in zip(pictures, self.frames):
            for target, placement in placed.items():
                (x, y), (sx, sy) = self.grid.corner(target), self.grid.corner(placement.source)
                picture[y : y + height, x : x + width] = images[placement.image][sy : sy + height, sx : sx + width]
            outline(picture, self.grid, placed, PLACED)
        return pictures


SELECTED, PLACED = (230, 50, 50), (70, 130, 255)  # red and blue, as in the original's pictures


def outline(picture, grid, tiles, colour):
    """Draws the border of a set of tiles into a picture uint8 [H, W, 3]."""
    width, height = grid.tile
    tiles = set(tiles)
    for row, column in tiles:
        x, y = grid.corner((row, column))
        if (row - 1, column) not in tiles:
            picture[y, x : x + width] = colour
        if (row + 1, column) not in tiles:
            picture[y + height - 1, x : x + width] = colour
        if (row, column - 1) not in tiles:
            picture[y : y + height, x] = colour
        if (row, column + 1) not in tiles:
            picture[y : y + height, x + width - 1] = colour


def selection_pictures(grid, images, groups):
    """The images with the selected tiles framed in red: uint8 [N, H, W, 3]."""
    pictures = np.stack(images).copy()
    for group in groups:
        outline(pictures[group.image], grid, group.tiles, SELECTED)
    return pictures
