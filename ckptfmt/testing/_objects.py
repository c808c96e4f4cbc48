"""Shorthand for tests: objects of a store as a whole."""

from __future__ import annotations

from contextlib import closing

from ckptfmt._core.storage.base import Store, Version

__all__ = ["content_of", "names_in", "publish", "version_of"]


def publish(store: Store, name: str, content: bytes, *, replace: bool = False) -> str:
    """Publish an object whole, and return what it is called then."""
    with store.create(name, expected_bytes=len(content), replace=replace) as file:
        file.write(content)
        file.commit()
        return file.path


def content_of(store: Store, name: str) -> bytes:
    """Return the bytes of an object."""
    with closing(store.open(name)) as source:
        return source.read(0, source.size)


def names_in(store: Store) -> set[str]:
    """Return the names of all objects, but for those of locks."""
    return {entry.name for entry in store.list() if not entry.name.startswith(".ckptfmt.")}


def version_of(store: Store, name: str) -> Version:
    """Return the version of an object that is there."""
    entry = store.look(name)
    assert entry is not None
    assert entry.version is not None
    return entry.version
