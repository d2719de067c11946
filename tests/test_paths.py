"""Where the book's parts lie."""

from essaylib import paths


def test_a_relative_root_stays_where_it_was_meant(tmp_path, monkeypatch):
    (tmp_path / "book of mine").mkdir()
    (tmp_path / "book of mine" / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESSAY_ROOT", "book of mine")
    assert paths.root() == tmp_path.resolve() / "book of mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ESSAY_ROOT", "~/book of mine")
    assert paths.book() == tmp_path.resolve() / "book of mine" / "book"
