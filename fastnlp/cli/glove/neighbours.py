"""``fastnlp glove neighbours``: which words are near."""

from __future__ import annotations

import click


@click.command(short_help="Show the nearest words.")
@click.argument("vectors", type=click.Path(exists=True, dir_okay=False))
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@click.option("--negative", multiple=True, metavar="WORD", help="Take this word off the sum of the others.")
@click.option("--topn", type=click.IntRange(min=1), metavar="N", default=10, show_default=True, help="How many.")
def neighbours(vectors: str, words: tuple[str, ...], negative: tuple[str, ...], topn: int) -> None:
    """Show the words nearest to each WORD by the cosine of their VECTORS, or with --negative to the sum of all.

    \b
    Examples:
      fastnlp glove neighbours vectors.txt king queen
      fastnlp glove neighbours vectors.txt king woman --negative man
    """
    from fastnlp import KeyedVectors
    from fastnlp.cli.console import Stages, print_table

    with Stages().stage("loading vectors"):
        loaded = KeyedVectors.load(vectors)
    queries = [words] if negative else [(word,) for word in words]
    try:
        found = [loaded.most_similar(list(query), negative=list(negative), topn=topn) for query in queries]
    except KeyError as error:
        raise click.ClickException(f"{vectors}: {error}") from None
    for query, near in zip(queries, found, strict=True):
        title = " + ".join(query) + "".join(f" - {word}" for word in negative)
        print_table([(word, f"{cosine:.3f}") for word, cosine in near], title=title, numeric=(1,))
