"""Showing people the results of an evaluation."""

from __future__ import annotations

TITLES = {"validate": "validation", "test": "test"}


def format_results(fn: str, results: list[dict[str, float]]) -> str:
    """Return results as a table: a row a metric, a column a loader.

    Args:
        fn: "validate" or "test".
        results: Metrics by name, for each loader.

    Example:
        >>> print(format_results("test", [{"test_acc": 0.5}]))
        test metric    value
        test_acc      0.5000
    """
    names = list(dict.fromkeys(name for metrics in results for name in metrics))
    title = f"{TITLES[fn]} metric"
    if not names:
        return f"{title}: nothing was logged"
    heads = (
        ["value"] if len(results) == 1 else [f"loader {i}" for i in range(len(results))]
    )
    width = max(len(title), *(len(name) for name in names))
    lines = [title.ljust(width) + "".join(f"{head:>10}" for head in heads)]
    for name in names:
        cells = (metrics.get(name) for metrics in results)
        shown = ("" if value is None else f"{value:.4f}" for value in cells)
        lines.append(name.ljust(width) + "".join(f"{cell:>10}" for cell in shown))
    return "\n".join(lines)
