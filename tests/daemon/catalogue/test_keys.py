"""Keys: legal whatever the names, the same for the same, different for what differs."""

from hypothesis import assume, example, given
from hypothesis import strategies as st

from daemon.making import run_info, save
from dropoffd.catalogue.keys import component, file_key, pack_key, record_key, run_key
from dropoffd.stores.directory.store import DirectoryStore

SHA = "0123456789abcdef" * 4

names = st.binary(min_size=1, max_size=255).filter(lambda raw: b"/" not in raw and b"\0" not in raw)
paths = st.lists(names, min_size=1, max_size=5).map(b"/".join)
labels = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60)


def is_legal(key: str) -> bool:
    """Tell whether every component is plain, printable and within the limit of every store that we know."""
    parts = key.split("/")
    return (
        key.isascii()
        and key.isprintable()
        and all(
            part and not part.startswith(".") and len(part) <= DirectoryStore.limits.component_max_bytes - 15
            for part in parts
        )
    )


@given(labels, labels, st.one_of(st.just(""), labels), paths)
@example("..", ".", "..", b"..")
@example("-", "~", "%", b"a/../b")
@example("x" * 255, "\N{SNOWMAN}" * 60, "p", b"\xff" * 255)
@example(" ", "\x1b[31m", "\u202e", b"\n/\r/\x7f")
def test_every_key_is_legal(project: str, name: str, prefix: str, path: bytes) -> None:
    """No component is empty, hidden, `.` or `..`, over-long, or holds anything but printable ASCII."""
    one = save(run=run_info(name, project), name=path, prefix=prefix)
    for key in (file_key(one, path, SHA), pack_key(one, SHA), run_key(one.run), record_key(one)):
        assert is_legal(key), key


@given(names, names)
@example(b".", b"%2E")
@example(b"%2E", b".")
@example(b"a" * 241, b"a" * 242)
@example(b"a" * 120 + b"b" * 60 + b"c" * 120, b"a" * 120 + b"d" * 60 + b"c" * 120)
@example(b"\xff" * 255, b"\xff" * 254)
def test_different_names_make_different_components(one: bytes, other: bytes) -> None:
    """Two names share a component only if they are the same."""
    assert (component(one) == component(other)) is (one == other)


@given(paths, paths)
def test_different_paths_of_the_same_content_make_different_keys(one: bytes, other: bytes) -> None:
    """Two paths with the same bytes are two objects, each under its name; the same path is the same object."""
    of = save()
    assert (file_key(of, one, SHA) == file_key(of, other, SHA)) is (one == other)


@given(paths)
def test_the_content_decides_and_not_the_job(path: bytes) -> None:
    """Two jobs of one project with the same content and name have one key; other content has another."""
    first, second = save(run=run_info("one")), save(run=run_info("two"), priority=3)
    assert file_key(first, path, SHA) == file_key(second, path, SHA)
    assert file_key(first, path, SHA) != file_key(first, path, SHA[::-1])
    assert record_key(first) != record_key(second)


@given(st.binary(min_size=1, max_size=255))
def test_long_names_keep_whole_escapes(name: bytes) -> None:
    """Every % of a component is followed by two hex digits, also where its middle was left out."""
    assume(b"/" not in name)
    for after in component(name).split("%")[1:]:
        int(after[:2], 16)
        assert len(after) >= 2


def test_the_layout_is_the_documented_one() -> None:
    """The keys are those that the store format's specification shows."""
    one = save(7, run=run_info("resnet-50", "cv"), prefix="models/best", name=b"epoch 1/best.pt")
    assert file_key(one, one.name, SHA) == f"cv/files/models/best/epoch%201/{SHA[:32]}/best.pt"
    assert pack_key(one, SHA) == f"cv/packs/{SHA[:32]}.zip"
    assert run_key(one.run) == "cv/runs/resnet-50/run.json"
    assert record_key(one) == f"cv/runs/resnet-50/files/{one.job}.json"


def test_readable_names_stay_readable() -> None:
    """What a key can hold is not encoded."""
    assert component(b"Best-Model_v1.2~(final)!'.pt") == "Best-Model_v1.2~(final)!'.pt"
    assert component(b".hidden") == "%2Ehidden"
    assert component("caf\u00e9".encode()) == "caf%C3%A9"
    long = component(b"x" * 241)
    assert long.startswith("x" * 120 + "~")
    assert long.endswith("~" + "x" * 60)
