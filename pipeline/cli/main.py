"""The command line. Heavy imports wait until a command needs them, so that help answers at once."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from devices.host import remove_abandoned
from pipeline.cli.callers.arguments import callers
from pipeline.cli.compile.arguments import compile_
from pipeline.cli.db.arguments import db_app
from pipeline.cli.devices.arguments import devices_app
from pipeline.cli.ending import exit_code_of
from pipeline.cli.gate.arguments import gate
from pipeline.cli.help import Commands
from pipeline.cli.interrupts import ended_by_signals
from pipeline.cli.profile.arguments import compare, profile
from pipeline.cli.recipes.arguments import recipes
from pipeline.cli.run.arguments import run, search
from pipeline.cli.sign.arguments import sign
from pipeline.cli.table.arguments import table_app
from pipeline.cli.verify.arguments import verify

app = Commands(
    "From a trained teacher to a compiled student that is proven to keep its latency budget.", name="lathe"
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lathe {version('lathe-deploy')}")
        raise typer.Exit


@app.callback()
def _root(
    shown: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before a command."""


app.add(
    "run",
    "lathe run",
    "lathe run mine.toml --work work-mine",
    "lathe run mine.toml --set 'target.*.budget=0.5x'",
)(run)
app.add("search", "lathe search mine.toml --work work-mine")(search)
app.add(
    "compile",
    "lathe compile model.onnx --target host --data images",
    "lathe compile model.onnx --target pi5/litert --data images --max-drop 1 --out bundle",
)(compile_)


app.add("verify", "lathe verify lathe-work/bundles/quickstart", "lathe verify bundle --key trusted.pub")(
    verify
)
app.add("sign", "lathe sign lathe-work/bundles/quickstart --key key.pem")(sign)
app.add(
    "gate",
    "lathe gate new-bundle --against old-bundle",
    "lathe gate bundle --max-latency-ms 2.5 --min-accuracy 91% --max-size 300kB --junit gate.xml",
)(gate)
app.add("callers", "lathe callers lathe-work/bundles/quickstart examples --c-header")(callers)
app.add("recipes", "lathe recipes quickstart > mine.toml")(recipes)
app.add(
    "profile",
    "lathe profile model.onnx --target host/onnxruntime:fp32@1",
    "lathe profile *.tflite --target pi5/litert:fp32@4 --ops --save pi5.json",
)(profile)
app.add("compare", "lathe compare before.onnx after.onnx --target host/onnxruntime:fp32@1")(compare)
app.add_typer(devices_app, name="devices")
app.add_typer(db_app, name="db")
app.add_typer(table_app, name="table")


def main() -> None:
    """Entry point of ``lathe``; every error ends with its documented exit code (docs/exit-codes/index.md)."""
    arguments = sys.argv[1:]
    as_json = "--json" in arguments
    with ended_by_signals(arguments, as_json=as_json):
        sys.exit(exit_code_of(lambda: _command(arguments), as_json=as_json))


def _command(arguments: list[str]) -> None:
    """Run the command that the arguments name; unlike typer's own way, every exception comes through."""
    command = typer.main.get_command(app)
    with command.make_context("lathe", arguments) as context:
        remove_abandoned()
        command.invoke(context)
