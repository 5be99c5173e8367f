"""JSON and table of a finished measurement."""

import io
import json

from rich.console import Console

from nybble.tools.bench.machine import Host
from nybble.tools.bench.report import Column, Report

HOST = Host("Some CPU", 2, "v4", (), "Linux", {"numpy": "2"})
ROWS = [{"format": "q4_0", "us": 12.345}, {"format": "q8_0", "us": None}]


def test_json_is_one_object_with_rows_and_machine():
    report = Report("kernels", HOST, ROWS, ["no peer"], {"rounds": 3})
    content = json.loads(report.as_json())
    assert content["kind"] == "kernels"
    assert content["machine"]["cpu"] == "Some CPU"
    assert (content["rounds"], content["rows"], content["notes"]) == (3, ROWS, ["no peer"])


def test_table_shows_values_dashes_and_notes():
    stream = io.StringIO()
    columns = (Column("format", "format"), Column("us", "us", "{:.1f}"), Column("x", "missing"))
    report = Report("kernels", HOST, ROWS, ["[weird] note"])
    report.print(Console(file=stream, width=100), columns)
    text = stream.getvalue()
    assert "12.3" in text
    assert "Some CPU, 2 processors, v4" in text
    assert "note: [weird] note" in text
    assert text.count(" - ") >= 3
