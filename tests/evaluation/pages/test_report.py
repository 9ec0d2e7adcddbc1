"""A page opens on its own: text is data, nothing is loaded from outside, ids and pictures are in order."""

from __future__ import annotations

import base64
import hashlib
import re


def test_untrusted_text_stays_text(tmp_path, read, write_run, write_comparison, conversation, three_rows):
    nasty = "<script>alert(1)</script><img src=x onerror=alert(2)>\" onmouseover='alert(3)' {{ 7 * 7 }}"
    talk = conversation()
    talk |= {"id": nasty, "hidden": {nasty: nasty}, "ended": nasty}
    talk["messages"][0] |= {"content": nasty, "role": nasty}
    talk["messages"][1]["tokens"][0]["text"] = nasty
    write_run(tmp_path / "x", nasty, [talk], **{nasty: nasty})
    row = three_rows[1] | {"name": nasty, "run": nasty, "note": nasty}
    page = read(
        write_comparison(tmp_path, title=nasty, aim=nasty, rows=[row], runs={nasty: "x"}, score=nasty)
    )
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "link", "a:href")]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text


def test_nothing_comes_from_outside(page):
    for tag, attributes in page.elements:
        assert "src" not in attributes and "srcset" not in attributes and tag != "link"
        for name in ("href", "xlink:href"):
            # Or to the page of a run in the same folder, as what was said before is found there.
            where = attributes.get(name) or "#"
            assert where.startswith("#") or re.fullmatch(r"[\w-]+/report\.html", where)
    assert "http" not in page.html.replace("http-equiv", "") and "@import" not in page.html
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", page.html))
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = [a[key] for _, a in page.elements for key in ("aria-controls", "aria-labelledby") if key in a]
    wanted += [a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")]
    wanted += re.findall(r"url\(#([^)]*)\)", page.html)
    assert set(wanted) <= set(ids)


def test_pictures_have_words(page):
    pictures = [a for tag, a in page.elements if tag == "svg"]
    assert len(pictures) > 10
    assert all(a.get("role") == "img" and len(a.get("aria-label") or "") > 10 for a in pictures)
