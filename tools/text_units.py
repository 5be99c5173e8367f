"""Numbers as people read them."""


def spelled_seconds(value: float) -> str:
    """Seconds in the unit that leaves few zeros: "1.250 s", "3.100 ms", "12.5 us"."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if value >= factor:
            return f"{value / factor:.3f} {unit}"
    return f"{value * 1e6:.1f} us"


def spelled_bytes(value: float) -> str:
    """Bytes in decimal units: "4.52 GB", "96.51 MB", "0.3 kB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value / 1e3:.1f} kB"
