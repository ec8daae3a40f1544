from watchkeeper_evaluations.report import page


def test_what_is_shown_is_text_and_nothing_is_fetched() -> None:
    html = page("<b>Title", "a & b", {"Rows": [{"name": "<script>x</script>"}, {"name": "y", "more": 1}], "Empty": []})
    assert "<script" not in html
    assert "&lt;script&gt;x" in html
    assert "a &amp; b" in html
    assert "None." in html
    assert "//" not in html
