"""Tables in every format."""

import pytest

from spinal_repro.results.tables import Column, render

COLUMNS = (Column("name", "Name", "a name"), Column("value", "Value, %", form="{:.1f}".format))
ROWS = [{"name": "a_b & {c} #1 $x^2$~\\", "value": 1.25}, {"name": "mnist/cnn_spinal8"}]


@pytest.mark.parametrize(
    ("style", "first", "second"),
    [
        ("table", r"a_b & {c} #1 $x^2$~\       1.2", "mnist/cnn_spinal8"),
        ("csv", r"a_b & {c} #1 $x^2$~\,1.25", "mnist/cnn_spinal8,"),
        ("markdown", r"| a_b &amp; {c} #1 \$x^2\$\~\\ | 1.2 |", "| mnist/cnn_spinal8 |  |"),
        (
            "latex",
            r"a\_b \& \{c\} \#1 \$x\textasciicircum{}2\$\textasciitilde{}\textbackslash{} & 1.2 \\",
            r"mnist/cnn\_spinal8 &  \\",
        ),
    ],
)
def test_text_is_escaped_and_only_csv_has_full_precision(style, first, second):
    lines = render(COLUMNS, ROWS, style).splitlines()
    assert lines.index(second) == lines.index(first) + 1
    assert ("Name: a name" in "".join(lines)) == (style != "csv")
