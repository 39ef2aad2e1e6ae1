"""The commands of `anomaly weights`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from anomaly.options import Json, Offline, Quiet, Verbose, front, say, tell, tell_notes

weights_app = typer.Typer(
    help="Pretrained backbones: list them, bring them here, carry them to a machine without a network.\n\n"
    "Example: anomaly weights list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@weights_app.command("list", help="Show what the weights folder holds.\n\nExample: anomaly weights list")
def weights_list(as_json: Json = False) -> None:
    """List the weights folder."""
    with front():
        from anomaly.workflows.weights import describe_weights, render

        facts = describe_weights()
        tell(json.dumps(facts, indent=2) if as_json else render(facts))


@weights_app.command(
    "import",
    help="Put a safetensors file, all of a network or its first layers, into the weights folder.\n\n"
    "Example: anomaly weights import FILE --as resnet18",
)
def weights_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="From `anomaly weights export`, or anyone's.")],
    arch: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What network of torchvision or timm it is of.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option("--mean", metavar="a,b,c", help="Of the input it wants, a picture in [0, 1].")
    ] = None,
    std: Annotated[str | None, typer.Option("--std", metavar="a,b,c", help="The same; default: ImageNet's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights of that name.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Import weights."""
    with front(verbose, quiet):
        from anomaly.workflows.weights import import_weights, render_put

        put = import_weights(file, arch=arch, mean=mean, std=std, overwrite=overwrite)
        tell_notes(put.notes, quiet)
        tell(render_put(put))


@weights_app.command(
    "export",
    help="Copy the weights into a folder, for a machine without a network.\n\n"
    "Example: anomaly weights export DIR --only resnet18",
)
def weights_export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; made.")],
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="These alone; may be given several times.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same name.")] = False,
    verbose: Verbose = False,
) -> None:
    """Export weights."""
    with front(verbose):
        from anomaly.workflows.weights import export_weights, render_export

        tell(render_export(export_weights(folder, only=only or (), overwrite=overwrite)))


@weights_app.command(
    "fetch",
    help="Download the published weights of a network into the weights folder.\n\n"
    "Example: anomaly weights fetch resnet18",
)
def weights_fetch(
    arch: Annotated[str, typer.Argument(metavar="NAME", help="A network of torchvision or timm.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace weights of that name.")] = False,
    offline: Offline = False,
    verbose: Verbose = False,
) -> None:
    """Fetch weights."""
    with front(verbose):
        from anomaly.workflows.weights import fetch_weights, render_put

        put = fetch_weights(arch, overwrite=overwrite, offline=offline, say=say)
        tell_notes(put.notes, quiet=False)
        tell(render_put(put))
