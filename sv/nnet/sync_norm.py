"""Batch normalisation over a micro-batch that several processes share, on CPUs.

torch's own SyncBatchNorm needs a GPU. Parameters, running statistics and their names are those of
the normalisation replaced, so a checkpoint does not depend on the number of processes. In
evaluation mode nothing is exchanged.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncNorm(_BatchNorm):
    """Normalise by mean and variance over the batches of the processes of a group."""

    process_group: dist.ProcessGroup | None = None  # None: all processes

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...) by channel; a collective call: every process of the group makes it.

        Raises:
            ValueError: The processes together have one value per channel.
        """
        if not self.training:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        mean, var, count = merge_statistics(x.detach(), self.process_group)
        if count < 2:
            raise ValueError("training needs more than one value per channel")
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        statistics = mean, var, count, self.eps
        return _Normalise.apply(x, self.weight, self.bias, *statistics, self.process_group)


def merge_statistics(
    x: Tensor, process_group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor, int]:
    """Compute mean and biased variance of each channel over the (B, C, ...) of a group.

    Each computes its own in two passes; they are merged in float64 and in the same order
    everywhere, so all have the same bits.

    Returns:
        Mean (C,), variance (C,), and the number of values per channel.

    Source: Chan et al., "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979.
    """
    kind = torch.promote_types(x.dtype, torch.float32)
    # The buffers set the type: without them half precision's statistics would be half too.
    unused = [torch.zeros(x.shape[1], dtype=kind) for _ in range(2)]
    mean, var = torch.batch_norm_update_stats(x, *unused, 0.0)
    count = torch.tensor([x.numel() // x.shape[1]], dtype=torch.double)
    own = torch.cat([count, mean.double(), var.double()])
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(process_group))]
    dist.all_gather(gathered, own, process_group)
    counts, means, variances = torch.stack(gathered).split([1, len(mean), len(var)], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(dim=0) / total
    var = (counts * (variances + (means - mean).square())).sum(dim=0) / total
    return mean.to(kind), var.to(kind), int(total)


class _Normalise(torch.autograd.Function):
    """Normalisation by statistics that depend on the inputs of all processes of a group."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, count, eps, group):  # noqa: PLR0917 - torch's form
        ctx.save_for_backward(x, weight, mean, var)
        ctx.count, ctx.eps, ctx.group = count, eps, group
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, var = ctx.saved_tensors
        inverse = (var + ctx.eps).rsqrt()
        # With fixed statistics: the gradients of weight and bias from this process's part.
        _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, mean, inverse, False, ctx.eps, [False, True, True]
        )
        sums = torch.cat([grad_weight, grad_bias]).to(mean.dtype)
        dist.all_reduce(sums, group=ctx.group)
        along_x, along_1 = (sums / ctx.count).chunk(2)
        scale = weight * inverse
        shape = (1, -1) + (1,) * (x.dim() - 2)
        scale, along_x, along_1, mean = (
            t.view(shape) for t in (scale, -scale * inverse * along_x, -scale * along_1, mean)
        )
        centred = x.to(mean.dtype) - mean  # before the product: else its digits are lost
        grad_x = torch.addcmul(along_1, centred, along_x).addcmul_(grad.to(mean.dtype), scale)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None, None, None


def convert_norms(module: nn.Module, process_group: dist.ProcessGroup | None = None) -> None:
    """Replace the batch normalisations inside a module; their tensors stay the same objects."""
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm):
            convert_norms(child, process_group)
            continue
        norm = SyncNorm(child.num_features, child.eps, child.momentum, device="meta")
        norm._parameters, norm._buffers = child._parameters, child._buffers
        norm.process_group = process_group
        setattr(module, name, norm.train(child.training))
