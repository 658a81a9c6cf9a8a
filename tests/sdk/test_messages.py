"""Messages and records come back from their bytes as they were."""

import enum
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoff import answers, messages, questions, records, saves
from dropoff.records import Entry, Record, RunRecord, entry_path, path_fields


def tagged(union: Any) -> list[type]:
    """Return the messages of a union."""
    return list(typing.get_args(union))


def any_of(kind: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911  # a case for each kind of type
    """Return values of a field's type."""
    plain = {
        int: st.integers(0, 1000),
        float: st.floats(0, 1e12),
        str: st.text(),
        bytes: st.binary(),
        bool: st.booleans(),
        type(None): st.none(),
        Any: st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text()),
    }
    if isinstance(kind, typing.NewType):
        return any_of(kind.__supertype__)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return any_of(arguments[0])
    if origin in {types.UnionType, typing.Union}:
        return st.one_of([any_of(one) for one in arguments])
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return st.lists(any_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(any_of(one) for one in arguments))
    if origin is dict:
        return st.dictionaries(any_of(arguments[0]), any_of(arguments[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return struct(kind)
    return plain[kind]


def struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Return messages of a kind."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.fixed_dictionaries({name: any_of(hints[name]) for name in kind.__struct_fields__}).map(
        lambda fields: kind(**fields)
    )


@pytest.mark.parametrize("kind", tagged(questions.Request), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_requests_come_back(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    """Every request that the types allow is decoded as what it was."""
    one = data.draw(struct(kind))
    assert questions.decode_any_request(messages.encode(one)) == one


@pytest.mark.parametrize("kind", tagged(answers.Reply), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_replies_come_back(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    """Every answer that the types allow is decoded as what it was."""
    one = data.draw(struct(kind))
    assert answers.decode_any_reply(messages.encode(one)) == one


@pytest.mark.parametrize("kind", tagged(messages.JobReply), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_who_only_saves_reads_the_same(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    """What the daemon says about jobs is the same to a program that never loads what is asked of stores."""
    one = data.draw(struct(kind))
    assert messages.decode_reply(messages.encode(one)) == one


def test_a_newer_ones_fields_are_ignored() -> None:
    """A field that only a newer SDK knows does no harm."""
    raw = msgspec.msgpack.encode({"type": "show", "job": "x", "colour": "grey"})
    assert messages.decode_request(raw) == messages.Show("x")


@given(struct(saves.Save))
def test_an_older_daemon_takes_an_object(save: saves.Save) -> None:
    """To a daemon that knows no serializers an object is a file, with its name and content type; so is its entry."""
    known = [field for field in msgspec.structs.fields(saves.Save) if field.name != "serializer"]
    older = msgspec.defstruct("Save", [(field.name, field.type) for field in known], tag="save", kw_only=True)
    found = msgspec.msgpack.decode(messages.encode(save), type=older)
    assert {name: getattr(found, name) for name in older.__struct_fields__} == {
        field.name: getattr(save, field.name) for field in known
    }
    entry = Entry(path="a.npy", key="k", size=0, sha256="", mode="0644", mtime="")
    assert b"serializer" not in records.encode(entry)
    assert records.encode(msgspec.structs.replace(entry, serializer="npy")) != records.encode(entry)


@given(struct(Record), struct(RunRecord))
def test_records_come_back(record: Record, run: RunRecord) -> None:
    """A record or a run's own record is read from the store as it was written."""
    assert records.decode_record(records.encode(record)) == record
    assert records.decode_run(records.encode(run)) == run


@given(st.binary())
def test_a_name_survives_json(raw: bytes) -> None:
    """Any name's bytes come back from its fields, through base64 only where they are not UTF-8."""
    path, encoded = path_fields(raw)
    entry = Entry(path=path, path_base64=encoded, key="k", size=0, sha256="", mode="0644", mtime="")
    line = records.encode(entry)
    assert entry_path(msgspec.json.decode(line, type=Entry)) == raw
    try:
        assert (raw.decode(), encoded) == (path, None)
    except UnicodeDecodeError:
        assert encoded is not None
