"""From one image to class probabilities; validation and every tool predict with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

import cv2
import mxnet as mx
import numpy as np

from configs.schema import Network
from data_iter.cells import unpack_scores
from symbols import get_symbol
from symbols.cells import LABEL
from symbols.receptive_field import receptive_radius

from .errors import RunError
from .folding import fold_batch_norm, inference_graph
from .large import split_convolutions
from .memory import check_free, predicting_bytes
from .network import cell_layout, decoder_of

MOST_CELLS = 32766  # per side; OpenCV's warpAffine counts in 16 bits
SMALLEST = np.finfo(np.float32).tiny  # a probability of 0 gets the logarithm of this one


class PixelSegmenter(ABC):
    """The steps around a network in any library: padding, and cells to pixels.

    Images are (H, W, 3) uint8 RGB of any size. If a size is not a multiple of the downsampling
    rate, the bottom and the right are padded with the mean, as in training. The predictions of the
    padding are cut off, so masks do not shift.

    Parameters
    ----------
    network : Network
        The configuration of the network that :meth:`forward` runs.
    """

    def __init__(self, network: Network):
        self.network = network
        self.check_memory = False  # refuse what MXNet has no memory for; tools/predict.py asks
        self.cell, self._block = cell_layout(network)
        self._mean = np.asarray(network.mean_rgb, np.float32)

    @property
    def receptive_radius(self) -> int:
        """Bound on the distance, in pixels, at which a pixel still influences a prediction."""
        return receptive_radius(get_symbol(classes=1, head="any", **self.network.graph_options))

    @abstractmethod
    def forward(self, data: np.ndarray) -> np.ndarray:
        """Run the network: (1, 3, H, W) float32, RGB minus mean -> (L, block * block * h * w)."""

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return (L, H, W) float32 in 0..1 that sum to 1 over L."""
        return np.stack(list(self.at_pixels(self.cell_probabilities(image), image.shape[:2])))

    def labels(self, image: np.ndarray) -> np.ndarray:
        """Return the most probable class of each pixel, (H, W) uint8 train ids.

        It equals the argmax of :meth:`probabilities` but never holds all of them in memory.
        """
        return most_probable(self.at_pixels(self.cell_probabilities(image), image.shape[:2]))

    def at_pixels(
        self, cells: np.ndarray, hw: tuple[int, int], scale: float = 1.0
    ) -> Iterator[np.ndarray]:
        """Interpolate cells' probabilities to pixels, one class at a time.

        DUC's probabilities are interpolated directly, as in the release. The bilinear baseline is
        DeepLab-V2 (section 4.1.1), which interpolates scores and takes the softmax at pixels
        (``fc1_interp`` of its test.prototxt). Logarithms of probabilities are scores up to a
        constant per cell, which the softmax removes.

        Parameters
        ----------
        cells : ndarray
            (L, rows, columns) float32 from :meth:`cell_probabilities`.
        hw : tuple of int
            Size of the image.
        scale : float
            Factor by which the image was resized before the network saw it.

        Yields
        ------
        ndarray
            (H, W) float32 in 0..1, for each of the L classes.
        """
        if not decoder_of(self.network).interpolates_scores:
            yield from (upsample(plane, self.cell, hw, scale) for plane in cells)
            return
        scores = np.log(np.maximum(cells, SMALLEST))
        total = sum(np.exp(upsample(plane, self.cell, hw, scale)) for plane in scores)
        yield from (np.exp(upsample(plane, self.cell, hw, scale)) / total for plane in scores)

    def cell_probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the network's own probabilities, one value per cell.

        Returns
        -------
        ndarray
            (L, ceil(H / cell), ceil(W / cell)) float32.
        """
        height, width = image.shape[:2]
        data = self.network_input(image)
        features = tuple(length // (self.cell * self._block) for length in data.shape[2:])
        cells = unpack_scores(self.forward(data), features, self._block)
        return cells[:, : -(-height // self.cell), : -(-width // self.cell)]

    def network_input(self, image: np.ndarray) -> np.ndarray:
        """Return the network's input for an image: (1, 3, H', W') float32, padded, minus mean."""
        height, width = image.shape[:2]
        side = self.network.downsample
        data = np.zeros((1, 3, -(-height // side) * side, -(-width // side) * side), np.float32)
        np.subtract(image, self._mean, out=data[0, :, :height, :width].transpose(1, 2, 0))
        return data


class Segmenter(PixelSegmenter):
    """Runs a trained network in MXNet.

    Parameters
    ----------
    symbol : Symbol
        From :func:`symbols.get_symbol`; its loss is removed and its batch normalisation folded. Or
        a graph made for inference, with one output and no label input, which runs unchanged.
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
        self._float32 = LABEL in symbol.list_arguments()
        if self._float32:
            symbol = inference_graph(symbol)
            symbol, arg_params = fold_batch_norm(symbol, arg_params, aux_params)
            aux_params = {}
        self.symbol, self._context = symbol, context
        self._seen = (0, 0)  # pixels of the largest image so far, and the bytes that it takes
        self._network = self._split = _Network(symbol, context)
        self._uncut: tuple[int, ...] | None = None  # the last size that is computed as it is
        params = {**arg_params, **aux_params}
        self._params = {name: value.as_in_context(context) for name, value in params.items()}

    def forward(self, data: np.ndarray) -> np.ndarray:
        """Run the network; see :meth:`PixelSegmenter.forward`."""
        if self.check_memory and self._float32:  # int8 and bf16 were not measured
            self._check_memory(data.shape[2], data.shape[3])
        values = {**self._params, "data": mx.nd.array(data, self._context)}
        return self._network_for(data.shape).run(values)

    def _network_for(self, shape: tuple[int, ...]) -> _Network:
        """Return the graph, cut where MXNet would crash at this size (:mod:`train.large`)."""
        if self._context.device_type != "cpu" or shape == self._uncut:
            return self._network
        if shape != self._split.shape:
            symbol = split_convolutions(self.symbol, {"data": shape})
            if symbol is self.symbol:
                self._uncut = shape
                return self._network
            self._split = _Network(symbol, self._context, shape)
        return self._split

    def _check_memory(self, height: int, width: int) -> None:
        """Raise ``RunError`` for an image that is larger than all before, and too large."""
        pixels, held = self._seen
        if height * width <= pixels:
            return
        need = predicting_bytes(self.symbol, (height, width))
        if self._context.device_type == "cpu":
            held = 0  # on GPUs MXNet keeps what it took, to use it again
        advice = "cut it into tiles (--tile)"
        check_free(f"an image of {width}x{height}", need - held, [self._context], lambda _: advice)
        self._seen = (height * width, need)


class _Network:
    """A graph that is ready to run at any image size, or at the one that it was made for.

    Unlike an executor, which is bound to one image size and keeps every layer's output, MXNet's
    CachedOp runs any size and reuses the memory of an output after its last use (1.1 instead of
    2.4 GB for ResNet-101 at 544x544). On the CPU it keeps the preparation for the last size.
    Otherwise oneDNN's layouts of all weights, and their 8-bit integers, would be made again for
    every image (21% of the time of ResNet-101 in int8).
    """

    def __init__(
        self, symbol: mx.sym.Symbol, context: mx.Context, shape: tuple[int, ...] | None = None
    ):
        self.shape = shape
        on_cpu = context.device_type == "cpu"
        if on_cpu:
            symbol = symbol.get_backend_symbol("MKLDNN")  # fuses convolution, sum and ReLU
        self._inputs = symbol.list_inputs()
        data = self._inputs.index("data")
        params = [index for index in range(len(self._inputs)) if index != data]
        flags = [("data_indices", [data]), ("param_indices", params)]
        flags += [("static_alloc", on_cpu), ("static_shape", on_cpu)]
        self._graph = mx.nd.CachedOp(symbol, flags)

    def run(self, values: Mapping[str, mx.nd.NDArray]) -> np.ndarray:
        return self._graph(*(values[name] for name in self._inputs)).asnumpy()[0]


def most_probable(planes: Iterable[np.ndarray]) -> np.ndarray:
    """Return the (H, W) uint8 index of the largest of L planes (H, W) at each pixel.

    Of equal values the first counts, as in argmax. Not all planes are in memory at once, and it is
    several times faster.
    """
    planes = iter(planes)
    best = next(planes).copy()
    labels = np.zeros(best.shape, np.uint8)
    for index, plane in enumerate(planes, start=1):
        labels[plane > best] = index
        np.maximum(best, plane, out=best)
    return labels


def upsample(plane: np.ndarray, cell: int, hw: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """Interpolate one value per cell, (rows, columns), to pixels (H, W), bilinearly.

    A cell's training label is that of its first pixel, so its value belongs there: pixel ``p``
    reads position ``p / cell``. Beyond the last cell, the last value is repeated.

    Parameters
    ----------
    plane : ndarray
        (rows, columns) float32.
    cell : int
        Side of a cell in pixels of the image that the network saw.
    hw : tuple of int
        Size of the result.
    scale : float
        Factor by which the image was resized before the network saw it. Pixel centres are kept:
        pixel ``p`` is at ``(p + 1/2) * scale - 1/2`` in the resized image.

    Raises
    ------
    RunError
        A row or column has more cells than OpenCV can interpolate.
    """
    if cell == 1 and scale == 1:
        return plane[: hw[0], : hw[1]]
    if max(plane.shape) > MOST_CELLS:
        raise RunError(
            f"an image of {plane.shape[1]}x{plane.shape[0]} cells (width x height) is too large to "
            f"interpolate, at most {MOST_CELLS} a side are possible: cut it into tiles (--tile)"
        )
    factor, shift = scale / cell, (scale - 1) / (2 * cell)
    matrix = np.array([[factor, 0, shift], [0, factor, shift]])
    return cv2.warpAffine(
        plane,
        matrix,
        hw[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
