"""One image in, class probabilities out: what validation and every tool predict with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping

import cv2
import mxnet as mx
import numpy as np

from configs.schema import Network
from data_iter.cells import unpack_scores

EXECUTORS = 4  # image sizes whose bound networks are kept


class PixelSegmenter(ABC):
    """What stands around a network, whichever library runs it: padding, cells, pixels.

    Images are (H, W, 3) uint8 RGB of any size. A size that is no multiple of the downsampling rate
    is padded at the bottom and the right with the mean, which is what training pads with; the
    predictions of the padding are cut off, so no mask moves.

    Parameters
    ----------
    network : Network
        The configuration of the network that :meth:`forward` runs.
    """

    def __init__(self, network: Network):
        self.network = network
        self.cell, self._block = network.cell_layout
        self._mean = np.asarray(network.mean_rgb, np.float32)

    @abstractmethod
    def forward(self, data: np.ndarray) -> np.ndarray:
        """Run the network: (1, 3, H, W) float32, RGB minus mean -> (L, block * block * h * w)."""

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return (L, H, W) float32 in 0..1 that sum to 1 over L."""
        hw = image.shape[:2]
        return np.stack(
            [upsample(plane, self.cell, hw) for plane in self.cell_probabilities(image)]
        )

    def labels(self, image: np.ndarray) -> np.ndarray:
        """Return the most probable class of each pixel, (H, W) uint8 train ids.

        The same as the argmax of :meth:`probabilities`, which are never all in memory at once.
        """
        hw = image.shape[:2]
        labels = np.zeros(hw, np.uint8)
        best = None
        for train_id, plane in enumerate(self.cell_probabilities(image)):
            values = upsample(plane, self.cell, hw)
            if best is None:
                best = values
            else:
                labels[values > best] = train_id
                best = np.maximum(best, values)
        return labels

    def cell_probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the network's own probabilities, one value a cell.

        Returns
        -------
        ndarray
            (L, ceil(H / cell), ceil(W / cell)) float32.
        """
        height, width = image.shape[:2]
        side = self.network.downsample
        padded = (-(-height // side) * side, -(-width // side) * side)
        data = np.zeros((1, 3, *padded), np.float32)
        np.subtract(image, self._mean, out=data[0, :, :height, :width].transpose(1, 2, 0))
        features = (padded[0] // side, padded[1] // side)
        cells = unpack_scores(self.forward(data), features, self._block)
        return cells[:, : -(-height // self.cell), : -(-width // self.cell)]


class Segmenter(PixelSegmenter):
    """Runs a trained network in MXNet.

    Parameters
    ----------
    symbol : Symbol
        From :func:`symbols.get_symbol`.
    arg_params, aux_params : mapping of str to NDArray
        Its parameters.
    network : Network
        The configuration that the symbol was built from.
    context : Context
        Where to run.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        arg_params: Mapping[str, mx.nd.NDArray],
        aux_params: Mapping[str, mx.nd.NDArray],
        network: Network,
        context: mx.Context,
    ):
        super().__init__(network)
        self._symbol = symbol
        self._args = {name: value.as_in_context(context) for name, value in arg_params.items()}
        self._auxs = {name: value.as_in_context(context) for name, value in aux_params.items()}
        self._context = context
        self._executors: OrderedDict[tuple[int, int], mx.executor.Executor] = OrderedDict()

    def forward(self, data: np.ndarray) -> np.ndarray:
        """Run the network; see :meth:`PixelSegmenter.forward`."""
        executor = self._executor(data.shape[2:])
        executor.arg_dict["data"][:] = data
        return executor.forward(is_train=False)[0].asnumpy()[0]

    def _executor(self, hw: tuple[int, int]) -> mx.executor.Executor:
        if hw not in self._executors:
            shared = next(iter(self._executors.values()), None)
            executor = self._symbol.simple_bind(
                self._context, grad_req="null", data=(1, 3, *hw), shared_exec=shared
            )
            executor.copy_params_from(self._args, self._auxs)
            self._executors[hw] = executor
            if len(self._executors) > EXECUTORS:
                self._executors.popitem(last=False)
        self._executors.move_to_end(hw)
        return self._executors[hw]


def upsample(
    plane: np.ndarray, cell: int, hw: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Interpolate one value per cell, (rows, columns), to pixels (H, W), bilinearly.

    A cell's training label was that of its first pixel, so its value stays there: pixel ``p`` reads
    position ``p / cell``. Beyond the last cell its value is repeated.

    Parameters
    ----------
    plane : ndarray
        (rows, columns) float32.
    cell : int
        Side of a cell in pixels of the image that the network saw.
    hw : tuple of int
        Size of the result.
    scale : tuple of float
        The image that the network saw, relative to ``hw``, (vertical, horizontal). Pixel centres
        keep their place under resizing: pixel ``p`` is ``(p + 1/2) * scale - 1/2`` over there.
    """
    if cell == 1 and scale == (1.0, 1.0):
        return plane[: hw[0], : hw[1]]
    (y, x) = scale
    matrix = np.array([[x / cell, 0, (x - 1) / (2 * cell)], [0, y / cell, (y - 1) / (2 * cell)]])
    return cv2.warpAffine(
        plane,
        matrix,
        hw[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
