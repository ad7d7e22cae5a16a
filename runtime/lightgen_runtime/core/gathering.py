"""Putting together what the processes of a run have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lightgen_runtime.utilities.in_turn import in_turn
from lightgen_runtime.utilities.move_data import move_data_to_device


class Gathering:
    """Gives a module `all_gather` and `gather_in_order`."""

    def all_gather(
        self: Any, data: Any, group: Any = None, sync_grads: bool = False
    ) -> Any:
        """Stack the tensors of every process. Collective: every process calls it.

        Args:
            data: Tensor or number, or any nesting of lists, tuples and dictionaries of
                them; of the same shapes in every process.
            group: Process group; by default all.
            sync_grads: Let gradients flow back to the process they belong to.

        Returns:
            The same nesting of tensors of shape (processes, ...); of unchanged shape if
            there is only one process.
        """

        def gathered(value: Any) -> Any:
            if isinstance(value, (int, float)):
                value = torch.tensor(value, device=self.device)
            if not isinstance(value, Tensor):
                return value
            return self.trainer.strategy.all_gather(value, group, sync_grads)

        return tree_map(gathered, data)

    def gather_in_order(self: Any, values: list[Any]) -> list[Any]:
        """Return what all processes collected batch by batch, in the data's order.

        Collective, as in `on_validation_epoch_end`. Some may have more than others.

        Args:
            values: One for each batch of a loader, plain data. Collect them in
                `on_validation_batch_end`: hooks see each batch once with any strategy.

        Returns:
            The same in every process, its tensors in host memory.
        """
        strategy = self.trainer.strategy
        values = move_data_to_device(values, torch.device("cpu"))
        return in_turn(strategy.gather_objects(values, strategy.data_group))
