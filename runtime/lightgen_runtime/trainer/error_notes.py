"""What to do about torch's own errors that do not say it themselves."""

from __future__ import annotations

import re

# What an error says, and what it usually means in a training program.
NOTES = (
    (
        "does not require grad and does not have a grad_fn",
        "The loss does not depend on any parameter that is trained. Either it was cut off "
        "(`.detach()`, `.item()`, `torch.tensor(loss)`, `torch.no_grad()`), or all "
        "parameters are frozen (`requires_grad=False`).",
    ),
    (
        "grad can be implicitly created only for scalar outputs",
        "The loss has several elements. Reduce it to one, for example with `.mean()`.",
    ),
    (
        "modified by an inplace operation",
        "`Trainer(detect_anomaly=True)` shows the line that computed the changed tensor.",
    ),
    (
        "backward through the graph a second time",
        "In automatic optimization the trainer calls `backward`: `training_step` only "
        "returns the loss. If it does, a tensor with a graph is kept from an earlier "
        "batch: `.detach()` it.",
    ),
    (
        "optimizer got an empty parameter list",
        "The module has no such parameters: layers in a plain list or dictionary are not "
        "found (use `nn.ModuleList` or `nn.ModuleDict`), and a filter on `requires_grad` "
        "leaves nothing of a frozen model.",
    ),
    (
        "Expected all tensors to be on the same device",
        "Batches are moved to the device of the module. Make other tensors there, as in "
        "`torch.zeros(3, device=self.device)`, keep constants with `register_buffer`, and "
        "override `transfer_batch_to_device` for a container of your own.",
    ),
    (
        r"No working C\+\+ compiler|Cannot find a working triton",
        "`torch.compile` writes programs for its graphs, for which the machine needs a C++ "
        "compiler, and triton on a GPU. Install them, leave `Trainer(compile=...)` out, or "
        "try it without: `compile={'backend': 'aot_eager'}`.",
    ),
    (
        r"must be Tensor, not (list|tuple|dict)\b",
        "A batch of several tensors arrives as the collection that the loader made: "
        "unpack it in the step, as in `x, y = batch`.",
    ),
)


def note_on(error: BaseException) -> str | None:
    """Return advice on an error that torch raised, or None if there is none."""
    if not isinstance(error, (RuntimeError, TypeError, ValueError)):
        return None
    text = str(error)
    return next((note for said, note in NOTES if re.search(said, text)), None)
