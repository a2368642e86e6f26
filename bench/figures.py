"""What a benchmark reports: figures with their floor, target and ratio; percentiles."""

from collections.abc import Sequence
from dataclasses import dataclass, field


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    name: str
    value: str
    floor: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Report:
    """All figures of a run, as a Markdown table."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Keep a figure and show it at once."""
        self.figures.append(figure)
        ratio = "" if figure.ratio is None else f"  ratio {figure.ratio:.2f}"
        print(f"{figure.name}: {figure.value}  floor {figure.floor or '-'}{ratio}  target {figure.target}", flush=True)

    def markdown(self) -> str:
        """The table for RESULTS.md."""
        rows = ["| figure | value | floor | ratio | target | met |", "|---|---|---|---|---|---|"]
        for f in self.figures:
            ratio = "" if f.ratio is None else f"{f.ratio:.2f}"
            met = "" if f.met is None else ("yes" if f.met else "no")
            rows.append(f"| {f.name} | {f.value} | {f.floor} | {ratio} | {f.target} | {met} |")
        return "\n".join(rows)
