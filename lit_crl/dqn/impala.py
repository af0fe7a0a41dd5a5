"""The residual torso of IMPALA (Espeholt et al. 2018, figure 3, right), without its LSTM."""

from torch import Tensor, nn

#: Channels of its sections.
SECTIONS = (16, 32, 32)
#: Residual blocks of a section.
BLOCKS = 2


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), with 3×3 convolutions that keep the size."""

    def __init__(self, channels: int) -> None:
        """Make a block of ``channels``."""
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, H, W]``."""
        residual: Tensor = self.second(self.first(x.relu()).relu())
        return x + residual


def impala_layers(channels: int) -> list[nn.Module]:
    """Sections that each halve the size: a 3×3 convolution, max-pooling, and residual blocks.

    ``[B, C, H, W]`` with any H and W becomes ``[B, 32, ⌈H / 8⌉, ⌈W / 8⌉]``.
    """
    layers: list[nn.Module] = []
    for filters in SECTIONS:
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
        layers += [ResidualBlock(filters) for _ in range(BLOCKS)]
        channels = filters
    return [*layers, nn.ReLU()]
