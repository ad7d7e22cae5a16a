"""The network: plain PyTorch that knows nothing of training.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn


class DigitsNet(nn.Module):
    """Three convolutions and a linear classifier for 8x8 grey images.

    Args:
        width: Channels of the first two convolutions; the third has twice as many.
        dropout: Probability of dropping a feature before the classifier.
        num_classes: Number of classes, K.

    Raises:
        MisconfigurationException: `width` or `dropout` is out of range.
    """

    def __init__(self, width: int, dropout: float, num_classes: int = 10) -> None:
        super().__init__()
        if width < 1:
            raise MisconfigurationException(
                f"`width` is {width}; the network needs at least 1 channel."
            )
        if not 0 <= dropout < 1:
            raise MisconfigurationException(
                f"`dropout` is {dropout}; it must be at least 0 and below 1."
            )
        self.layers = nn.Sequential(
            _convolution(1, width),
            _convolution(width, width),
            nn.MaxPool2d(2),  # 8x8 -> 4x4
            _convolution(width, 2 * width),
            nn.MaxPool2d(2),  # 4x4 -> 2x2
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width * 2 * 2, num_classes),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, 1, 8, 8)."""
        logits_NK: Tensor = self.layers(images_NCHW)
        return logits_NK


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """Convolve 3x3 at constant size; the normalisation makes a bias superfluous."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
