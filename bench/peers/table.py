"""Rows of the comparison, as text and JSON."""
from dataclasses import asdict, dataclass, field

from runs import median


@dataclass
class Row:
    """One figure of temper beside a peer's. `ratio` is how many times better temper is."""
    name: str
    peer_name: str
    unit: str  # "tokens/s" (more is better) or "s" (less is better)
    peer: list = field(default_factory=list)  # samples, in the order taken
    temper: list = field(default_factory=list)
    target: float | None = None  # ratio to reach
    note: str = ""
    error: str = ""

    @property
    def ratio(self):
        if not self.peer or not self.temper:
            return None
        peer, temper = median(self.peer), median(self.temper)
        return peer / temper if self.unit == "s" else temper / peer

    def to_json(self):
        out = asdict(self)
        out["peer_samples"], out["temper_samples"] = out.pop("peer"), out.pop("temper")
        out["peer"] = median(self.peer) if self.peer else None
        out["temper"] = median(self.temper) if self.temper else None
        out["ratio"] = self.ratio
        return out


def figure(samples, unit):
    if not samples:
        return "-"
    value = median(samples)
    return f"{value:.3f} {unit}" if unit == "s" else f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def text(rows):
    lines = [("", "peer", "", "temper", "temper : peer", "to reach", "")]
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.ratio else "-"
        target = f"{row.target:g}" if row.target else ""
        lines.append((row.name, row.peer_name, figure(row.peer, row.unit), figure(row.temper, row.unit), ratio, target,
                      row.error and f"FAILED: {row.error}" or row.note))
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    shown = []
    for line in lines:
        cells = [cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))]
        shown.append("  ".join(cells + [line[6]]).rstrip())
    return "\n".join(shown)
