# ruff: noqa: D401  # a check's docstring is what it claims, not what it does
"""Keys, and how they are listed."""

from dropoffd.stores.base import Overwrite, RefusedError, Replace, Store
from dropoffd.stores.conformance.tools import Suite, absent, expect, keys, put, somewhere

check = Suite()


@check
async def the_list_is_in_the_order_of_keys(store: Store) -> None:
    """A listing has every key below its prefix once, in the order of their bytes, with true sizes."""
    prefix = somewhere()
    names = ["b", "a/z", "a/b/c", "a.b", "a-b", "A", "a0", "c/d"]
    for size, name in enumerate(names):
        await put(store, f"{prefix}/{name}", b"x" * size)
    found = [(stat.key, stat.size_bytes) async for stat in store.list(f"{prefix}/")]
    assert found == sorted((f"{prefix}/{name}", size) for size, name in enumerate(names))


@check
async def a_prefix_need_not_end_at_a_slash(store: Store) -> None:
    """A prefix is the beginning of a text, not a folder."""
    prefix = somewhere()
    for name in ("run-1/a", "run-10/b", "run-2/c", "other"):
        await put(store, f"{prefix}/{name}", b"")
    assert await keys(store, f"{prefix}/run-1") == [f"{prefix}/run-1/a", f"{prefix}/run-10/b"]
    assert await keys(store, f"{prefix}/run-1/") == [f"{prefix}/run-1/a"]
    assert await keys(store, f"{prefix}/run-1/a") == [f"{prefix}/run-1/a"]
    assert await keys(store, f"{prefix}/nothing") == []


@check
async def folders_are_the_next_step_in_keys(store: Store) -> None:
    """What comes next in keys, up to a slash, is told once, in order, and without what lies directly there."""
    prefix = somewhere()
    for name in ("run-1/a", "run-1/deep/b", "run-2/c", "other/d", "direct"):
        await put(store, f"{prefix}/{name}", b"")
    runs = [f"{prefix}/run-1/", f"{prefix}/run-2/"]
    assert [one async for one in store.folders(f"{prefix}/")] == [f"{prefix}/other/", *runs]
    assert [one async for one in store.folders(f"{prefix}/run-")] == runs
    assert [one async for one in store.folders(f"{prefix}/direct/")] == []


@check
async def what_changed_is_told_by_folders(store: Store) -> None:
    """Followed by folders a store tells all that is there, and then all that came, went or was replaced."""
    prefix, here = somewhere(), dict[str, set[tuple[str, str]]]()
    known = dict[str, str]()

    async def follow() -> set[str]:
        told = [folder async for folder in store.changes(f"{prefix}/", known)]
        for gone in here.keys() - {folder.prefix for folder in told}:
            del here[gone]
        for folder in told:
            known[folder.prefix] = folder.etag
            if folder.objects is not None:
                here[folder.prefix] = {(stat.key, stat.etag) for stat in folder.objects}
        return {key for objects in here.values() for key, _ in objects}

    names = [f"{prefix}/{name}" for name in ("a/1", "a/2", "a/deep/3", "b/4", "5")]
    for name in names:
        await put(store, name, b"")
    assert await follow() == set(names)
    await put(store, f"{prefix}/a/deep/6", b"")
    await store.delete(f"{prefix}/b/4")
    await put(store, f"{prefix}/5", b"another", Overwrite())
    assert await follow() == {*names, f"{prefix}/a/deep/6"} - {f"{prefix}/b/4"}
    assert set.union(*here.values()) == {(stat.key, stat.etag) async for stat in store.list(f"{prefix}/")}


@check
async def it_is_told_when_an_object_was_stored(store: Store) -> None:
    """A look and a listing tell the same second, and a later object none that is earlier."""
    prefix = somewhere()
    await put(store, f"{prefix}/1", b"")
    await put(store, f"{prefix}/2", b"")
    looked = [int((await store.stat(f"{prefix}/{n}")).modified_at) for n in (1, 2)]
    listed = [int(stat.modified_at) async for stat in store.list(f"{prefix}/")]
    assert listed == looked
    assert 0 < looked[0] <= looked[1]


@check
async def the_whole_store_can_be_listed(store: Store) -> None:
    """The empty prefix lists objects and nothing that is the store's own."""
    prefix = somewhere()
    first = await put(store, f"{prefix}/object", b"first")
    await put(store, f"{prefix}/object", b"second", Replace(first.etag))
    everything = await keys(store, "")
    assert f"{prefix}/object" in everything
    assert [key for key in everything if not key.startswith("conformance/")] == []


@check
async def odd_but_legal_keys_are_kept_apart(store: Store) -> None:
    """Every character that the catalogue puts into keys, and long components, come back as they went."""
    prefix = somewhere()
    names = ["a b", "per%20cent", "%2Ehidden", "it's", "(1)!", "a+b", "tilde~", "UPPER", "upper", "x" * 240, "a..b"]
    for name in names:
        await put(store, f"{prefix}/{name}", name.encode())
    assert await keys(store, f"{prefix}/") == sorted(f"{prefix}/{name}" for name in names)
    for name in names:
        assert await store.get(f"{prefix}/{name}") == name.encode()


@check
async def keys_that_are_no_plain_paths_are_refused(store: Store) -> None:
    """A key that is empty, absolute, or has an empty, `.` or `..` component raises RefusedError everywhere."""
    for key in ("", "/absolute", "a//b", "a/", "a/./b", "./a", "a/../b", "../outside", "..", "nul\0byte"):
        await expect(RefusedError, put(store, key, b"bytes"))
        await expect(RefusedError, put(store, key, b"bytes", Overwrite()))
        await expect(RefusedError, store.get(key))
        await expect(RefusedError, store.stat(key))
        await expect(RefusedError, store.delete(key))


@check
async def components_over_the_limit_are_refused(store: Store) -> None:
    """A key with a component longer than the limit raises RefusedError and leaves nothing."""
    prefix = somewhere()
    await expect(RefusedError, put(store, f"{prefix}/{'x' * (store.limits.component_max_bytes + 1)}", b"bytes"))
    await absent(store, prefix)
