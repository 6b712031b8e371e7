from dlens.tables import table_html, table_text

LONG = "a word " * 20
NAN = float("nan")


def lines(html: str) -> list[str]:
    return [line.strip() for line in html.splitlines()]


def test_a_table_of_html_has_its_cells_escaped_and_whole() -> None:
    assert lines(table_html(["<name>", "loss"], [["<b>&", 0.123456], [LONG.strip(), NAN]])) == [
        '<table class="dataframe">',
        "<thead>",
        '<tr style="text-align: unset;">',
        '<th scope="col">&lt;name&gt;</th>',
        '<th scope="col">loss</th>',
        "</tr>",
        "</thead>",
        "<tbody>",
        "<tr>",
        "<td>&lt;b&gt;&amp;</td>",
        "<td>0.1235</td>",
        "</tr>",
        "<tr>",
        f"<td>{LONG.strip()}</td>",
        "<td>–</td>",
        "</tr>",
        "</tbody>",
        "</table>",
    ]


def test_styles_and_digits_are_given() -> None:
    html = table_html(["loss"], [[0.123456]], digits=2, head="color:red", cell="color:blue")
    assert '<th scope="col" style="color:red">loss</th>' in html and '<td style="color:blue">0.12</td>' in html


def test_columns_of_text_are_told_from_those_of_numbers() -> None:
    html = lines(table_html(["what", "change", "kept"], [[LONG.strip(), "no", 0.5], [NAN, "yes", NAN]], words=True))
    assert html[3:6] == [
        '<th scope="col" class="words long">what</th>',
        '<th scope="col" class="words">change</th>',
        '<th scope="col">kept</th>',
    ]
    assert html[10:13] == [f'<td class="words long">{LONG.strip()}</td>', '<td class="words">no</td>', "<td>0.5</td>"]
    assert html[15:18] == ['<td class="words long">–</td>', '<td class="words">yes</td>', "<td>–</td>"]
    assert '<th scope="col">what</th>' in table_html(["what"], [], words=True)


def test_text_that_looks_like_a_tag_stays_text() -> None:
    html = table_html(["<th>"], [["<td>"]])
    assert html.count("<th ") == html.count("<td>") == 1
    assert "&lt;th&gt;" in html and "&lt;td&gt;" in html


def test_a_table_without_rows_has_its_headings() -> None:
    assert '<th scope="col">loss</th>' in table_html(["loss"], []) and "<td>" not in table_html(["loss"], [])
    assert table_text(["model", "loss"], []) == "model  loss"


def test_many_rows_and_columns_are_all_there() -> None:
    columns, rows = [f"c{i}" for i in range(30)], [list(range(30))] * 100
    assert table_html(columns, rows).count("<td>") == 3000
    text = table_text(columns, rows).splitlines()
    assert len(text) == 101 and text[100].split() == [str(i) for i in range(30)]


def test_text_has_words_to_the_left_and_numbers_to_the_right() -> None:
    rows = [["trio/ar", 16, 0.123456, "shipped; a long note " + LONG.strip()], ["b", 1, NAN, ""]]
    assert table_text(["model", "layers", "loss", "what"], rows).splitlines() == [
        "model    layers    loss  what",
        f"trio/ar      16  0.1235  shipped; a long note {LONG.strip()}",
        "b             1     nan",
    ]
