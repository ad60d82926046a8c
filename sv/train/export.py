"""Trained networks for other programs: TorchScript and ONNX, checked before they are published.

An export maps unpadded features (batch, frames, features), of any batch and any number of frames,
to (batch, embedding_dim). The front end is not part of it; a JSON text inside the file describes it
whole (`METADATA`, `sv.data.fbank.describe_front_end`).
"""

import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sv.errors import SvError
from sv.files import replacing

SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx"}
METADATA = "network.json"  # name of the text: an extra file in TorchScript, a property in ONNX
OPSET = 20  # ONNX 1.15, 2023: read by the runtimes of the last years
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Batch and frames to check with: those of the traced example and others; odd, tiny, long.
EXAMPLE = (2, 100)
CHECKED = ((1, 1), (1, 57), (2, 100), (3, 8), (1, 1201))
TOLERANCE = 1e-4  # greatest difference, as a share of the embedding's length


def export_network(
    net: nn.Module, path: Path, what: dict[str, Any], *, form: str, opset: int = OPSET
) -> float:
    """Write a network in another format; the file appears only if it computes the same.

    Args:
        net: An embedding network on the CPU; put into evaluation mode.
        path: The file to write.
        what: The metadata that the file gets; ``input_dim`` is needed here.
        form: ``torchscript`` or ``onnx``.
        opset: Version of ONNX's operators.

    Returns:
        The greatest difference of an embedding, as a share of its length.

    Raises:
        SvError: The packages that ONNX needs are not installed, the format cannot express the
            network, or the export computes other embeddings.
    """
    net.eval()
    metadata = json.dumps(what, sort_keys=True)
    example = torch.randn(*EXAMPLE, what["input_dim"], generator=torch.Generator().manual_seed(0))
    if form == "onnx":
        content = _make_onnx(net, example, metadata, opset)
        embed = _open_onnx(content)
    else:
        content = _make_torchscript(net, example, metadata)
        embed = torch.jit.load(io.BytesIO(content))
    difference = _compare(net, embed, what["input_dim"])
    if not difference <= TOLERANCE:
        raise SvError(
            f"{path} not written: its embeddings differ from the network's by {difference:.2g} of "
            f"their length (allowed: {TOLERANCE:g})"
        )
    with replacing(path, mode="wb") as file:
        file.write(content)
    return difference


@torch.inference_mode()
def _compare(net: nn.Module, embed: Callable[[Tensor], Tensor], input_dim: int) -> float:
    """Return the greatest difference over the batches of `CHECKED`; NaN counts as infinite."""
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for batch, frames in CHECKED:
        x = torch.randn(batch, frames, input_dim, generator=generator)
        expected, found = net(x), embed(x)
        if found.shape != expected.shape:
            return torch.inf
        share = (found - expected).norm(dim=1) / expected.norm(dim=1)
        worst = max(worst, float(share.nan_to_num(torch.inf).max()))
    return worst


def _make_torchscript(net: nn.Module, example: Tensor, metadata: str) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        # "deprecated, use torch.export": TorchScript was asked for (torch 2.13, 2026-11).
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(net, (example,), check_trace=False)  # compared by the caller
        torch.jit.save(traced, file, _extra_files={METADATA: metadata})
    return file.getvalue()


def _make_onnx(net: nn.Module, example: Tensor, metadata: str, opset: int) -> bytes:
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SvError(
            f"ONNX needs {', '.join(missing)}, not installed here: pip install {' '.join(missing)}"
        )
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("frames")}
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # among torch's own modules
            warnings.simplefilter("ignore", category)
        try:
            program = torch.onnx.export(
                net,
                (example,),
                dynamo=True,
                external_data=False,
                input_names=["features"],
                output_names=["embedding"],
                dynamic_shapes=(axes,),
                opset_version=opset,
                verbose=False,
            )
        except Exception as error:  # of torch.onnx or onnxscript, of many types
            reason = str(error).strip().splitlines()[0]
            raise SvError(f"ONNX cannot express this network: {reason}") from error
    model = program.model_proto
    # Where torch cannot convert to an older version it only logs that.
    made = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if made != opset:
        raise SvError(f"ONNX opset {opset} cannot express this network, {made} can: use that")
    model.metadata_props.add(key=METADATA, value=metadata)
    return model.SerializeToString()


def _open_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime  # noqa: PLC0415 - optional, and only for ONNX

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def embed(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["embedding"], {"features": x.numpy()})[0])

    return embed
