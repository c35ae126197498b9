"""``python -m benchmarks``: measure, show the ratios, and keep everything as JSON."""

from __future__ import annotations

import time
from pathlib import Path

import click


@click.command()
@click.argument("parts", nargs=-1)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build", "bench.json"),
    show_default=True,
)
def main(parts: tuple[str, ...], device: str, output: Path) -> None:
    """Measure the PARTS named, or all of them."""
    from benchmarks.suite import ON_A_CPU, PARTS
    from llbook.runs.files import write_json
    from llbook.runs.provenance import LIBRARIES, provenance

    if unknown := [part for part in parts if part not in PARTS]:
        raise click.BadParameter(
            f"got {unknown[0]!r}; expected some of: {', '.join(PARTS)}", param_hint="PARTS"
        )
    if device != "cpu" and (wrong := [part for part in parts if part in ON_A_CPU]):
        raise click.BadParameter(
            f"got {wrong[0]!r}, which is measured on a CPU alone; expected none of it with "
            f"--device {device}",
            param_hint="PARTS",
        )
    began = time.perf_counter()
    facts = provenance(device, (*LIBRARIES, "cvxpy", "osqp"))
    results = facts | {
        "commit": {name: facts[name] for name in ("commit", "dirty")},
        "machine": facts["device"],
        "parts": {},
    }
    chosen = parts or [part for part in PARTS if device == "cpu" or part not in ON_A_CPU]
    for part in chosen:
        start = time.perf_counter()
        results["parts"][part] = PARTS[part](device)
        click.echo(f"{part}: {time.perf_counter() - start:.0f} s")
        for line in ratios(results["parts"][part]):
            click.echo(f"  {line}")
        if note := results["parts"][part].get("ways_note"):
            click.echo(f"  {note}")
        # after each part: a later one that fails, or is stopped, takes nothing with it
        results["seconds"] = time.perf_counter() - began
        write_json(output, results)
    click.echo(f"{output} ({results['seconds']:.0f} s in all)")


def ratios(numbers: object, name: str = "") -> list[str]:
    """The entries whose name says that they are a ratio, one line each."""
    if not isinstance(numbers, dict):
        return [f"{name}: {numbers:.3g}"] if "times_" in name else []
    return [
        line
        for key, value in numbers.items()
        for line in ratios(value, f"{name}, {key}" if name else key)
    ]


if __name__ == "__main__":
    main()
