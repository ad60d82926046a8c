"""The study's residual network: pre-activation blocks over (mels, frames) maps.

A batch may hold utterances of different lengths, padded at the end. With ``lengths`` the maps
are masked wherever a convolution or a mean would read the padding, so that the result of an
utterance does not depend on the rest of its batch. Training crops have one length: no masks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv.nnet.recompute import run_checkpointed

STRIDES = (1, 2, 2, 2)  # of the four stages, in time and frequency
SE_STAGES = 2  # squeeze-and-excitation is in the first two stages (the study, section 5.1)


def halve_lengths(lengths: Tensor | None) -> Tensor | None:
    """Frames left after a 3x3 convolution of stride 2 with padding 1: half, rounded up."""
    return None if lengths is None else (lengths + 1) // 2


def time_mask(lengths: Tensor, frames: int) -> Tensor:
    """Mark the valid frames: (batch,) int64 -> (batch, frames) bool."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Set the padded frames of (B, C, F, T) maps to 0, which is what a convolution pads with."""
    if lengths is None:
        return x
    return x * time_mask(lengths, x.shape[-1])[:, None, None, :].to(x.dtype)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from the mean of all channels (reduction 1).

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018; SiLU as in the study's toolkit.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels)
        self.excite = nn.Linear(channels, channels)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Gate the channels of (B, C, F, T) maps; the mean is over valid frames."""
        if lengths is None:
            mean = x.mean(dim=(2, 3), dtype=torch.float32)  # (B, C)
        else:
            # In float32 under autocast too: a map of an utterance has more cells than float16
            # can count.
            cells = (lengths * x.shape[2])[:, None].float()
            mean = zero_padding(x, lengths).sum(dim=(2, 3), dtype=torch.float32) / cells
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(mean))))
        return x * gate[:, :, None, None].to(x.dtype)


class Block(nn.Module):
    """Pre-activation residual block: [BN, ReLU, conv] two or three times, SE, plus the shortcut.

    The convolutions are 3x3 (with the stride), 3x3 and, in three-convolution blocks, 1x1; none has
    a bias. The shortcut is the input, or a 1x1 convolution and BN where shape or stride change.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Of the first convolution, in time and frequency.
        convs: 2 or 3.
        excitation: Whether squeeze-and-excitation gates the output before the addition.
        project: Whether the shortcut is projected.
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int, convs: int, excitation: bool, project: bool
    ) -> None:
        super().__init__()
        self.stride = stride
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs) if convs == 3 else None
        self.conv3 = nn.Conv2d(outputs, outputs, 1, bias=False) if convs == 3 else None
        self.excitation = SqueezeExcitation(outputs) if excitation else None
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if project
            else None
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (B, inputs, F, T) to (B, outputs, F/stride, T/stride), sizes rounded up.

        ``lengths`` are the valid frames of ``x``, (B,) int64, or None if all are valid.
        """
        shortcut = x if self.shortcut is None else self.shortcut(x)
        # In place only on new outputs of a normalisation or convolution: neither keeps its output.
        out_lengths = halve_lengths(lengths) if self.stride == 2 else lengths
        x = self.conv1(zero_padding(F.relu_(self.norm1(x)), lengths))
        x = self.conv2(zero_padding(F.relu_(self.norm2(x)), out_lengths))
        if self.conv3 is not None:
            x = self.conv3(F.relu_(self.norm3(x)))
        if self.excitation is not None:
            x = self.excitation(x, out_lengths)
        return x.add_(shortcut)


class ResNet(nn.Module):
    """Stem and four stages: (batch, frames, features) -> (batch, channels * features/8, frames/8).

    Args:
        blocks: Blocks of each stage.
        channels: Feature maps of each stage.
        convs: Convolutions per block, 2 or 3.
        input_dim: Features per frame (81 in the study: 80 log-mel and log-energy).
    """

    def __init__(
        self, blocks: tuple[int, ...], channels: tuple[int, ...], convs: int, input_dim: int
    ) -> None:
        super().__init__()
        self.checkpointing = "none"  # see sv/nnet/recompute.py
        self.stem = nn.Conv2d(1, channels[0], 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels[0])
        self.stages = nn.ModuleList()
        inputs, size = channels[0], input_dim
        for stage, (count, outputs, stride) in enumerate(
            zip(blocks, channels, STRIDES, strict=True)
        ):
            stack = nn.ModuleList()
            for index in range(count):
                first = index == 0
                stack.append(
                    Block(
                        inputs,
                        outputs,
                        stride=stride if first else 1,
                        convs=convs,
                        excitation=stage < SE_STAGES,
                        project=first and (stride != 1 or inputs != outputs),
                    )
                )
                inputs = outputs
            self.stages.append(stack)
            size = -(-size // stride)
        self.output_dim = inputs * size
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015: keeps the variance through ReLU, forward.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map (B, T, features) float32 to (B, output_dim, T/8) and the lengths of the output.

        ``lengths`` (B,) int64 are the valid frames of each utterance; ``x`` must be 0 after
        them. None: all frames are valid.
        """
        x = x.transpose(1, 2).unsqueeze(1)  # (B, 1, F, T)
        x = F.silu(self.stem_norm(self.stem(x)))  # (B, C1, F, T)
        for stack in self.stages:
            for block in stack:
                x = run_checkpointed(self.checkpointing, block, x, lengths)
                if block.stride == 2:
                    lengths = halve_lengths(lengths)
        return x.flatten(1, 2), lengths  # (B, C4 * F/8, T/8)
