"""Running the command, and looking at the pages that it writes, for several tests."""

from __future__ import annotations

from html.parser import HTMLParser

from click.testing import CliRunner

from fastnlp.cli.app import command


def run(*arguments, **options):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], **options)


def succeeds(*arguments, **options):
    result = run(*arguments, **options)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def fails(*arguments, status=2, **options):
    """Run a command that must fail: return its one line on stderr, the last."""
    result = run(*arguments, **options)
    lines = result.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("fastnlp: ")]
    assert result.exit_code == status, (result.output, result.exception)
    assert len(errors) == 1, lines
    assert lines[-1] == errors[0]
    return errors[0]


class PageChecker(HTMLParser):
    """Collects ids and text, and fails where tags do not nest."""

    VOID = ("meta",)

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
