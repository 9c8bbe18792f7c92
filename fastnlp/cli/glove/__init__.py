"""``fastnlp glove``: word vectors of the user's text, in one command or step by step."""

from __future__ import annotations

import click

from fastnlp.cli.glove.count import count
from fastnlp.cli.glove.evaluate import evaluate
from fastnlp.cli.glove.neighbours import neighbours
from fastnlp.cli.glove.train import train
from fastnlp.cli.glove.vocab import vocab
from fastnlp.cli.glove.whole import whole


class _Steps(click.Group):
    """A group that runs `whole` where the first argument is not the name of a step."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["whole", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, step, rest = super().resolve_command(ctx, args)
        return "" if step is whole else name, step, rest  # messages do not name it

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        one = click.Context(whole, info_name=ctx.info_name, parent=ctx.parent)
        whole.format_help(one, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=_Steps, short_help="Train GloVe word vectors on text, at once or step by step.")
def glove() -> None:
    """Train GloVe word vectors."""


whole.hidden = True
glove.add_command(whole, "whole")
for step in (vocab, count, train, evaluate, neighbours):
    glove.add_command(step)
