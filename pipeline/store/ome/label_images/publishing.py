"""Publishing: a finished label stack is moved from the staging area to its place, all layers or none.

A journal in the staging area records the progress and is kept at the end; after a kill at any moment, a repeated
`publish` completes the move. An older stack is replaced only when the new one is complete, and the image never lists
a label that does not exist.
"""

import json
from typing import Any

from pipeline.errors import BadStore, RunConflict
from pipeline.store.ome.groups import (
    Group,
    find_group,
    forget_consolidated,
    json_bytes,
    read_json,
    with_ome,
    write_group,
    zarr_format_of,
)
from pipeline.store.ome.image import STAND_IN, is_stand_in
from pipeline.store.ome.label_images.reading import declared_layers, labels_path, layer_names, listed_labels
from pipeline.store.ome.label_images.writing import SCRATCH, STAGING, LabelWriter
from pipeline.store.places.address import Address


def check_free(
    address: Address, path: str, name: str, *, overwrite: bool = False, zarr_format: int | None = None
) -> None:
    """Refuse a label name that exists already, unless it may be overwritten; called before the work begins.

    Raises:
        BadArgument: the name is not valid for a label.
        RunConflict: there is such a label.
    """
    (checked,) = layer_names(name, 1)
    if not overwrite and find_group(address, labels_path(path, checked), zarr_format=zarr_format) is not None:
        raise RunConflict(
            f"{address.child(path)}: label {name!r} is there already; "
            "choose another --name, or --overwrite to replace it"
        )


def publish(writer: LabelWriter, *, overwrite: bool = False, coarsened: bool = False) -> None:
    """Finish the stack and move it to ``labels/<name>``, ..., then list it; repeat the call after a kill.

    ``coarsened``: `LabelWriter.coarsen` has been called for every layer, possibly by several workers.

    Raises:
        RunConflict: there is such a label and ``overwrite`` is False, or a label that is not part of the old
            stack has the name of a new layer.
        BadStore: nothing was staged.
    """
    journal = read_json(writer.address, writer.journal)
    if (journal is not None and journal.get("done")) or (journal is None and _was_published_directly(writer)):
        if writer.is_in_place:
            return
        raise BadStore(
            f"{writer.address.child(writer.path)}: label {writer.name!r} was replaced by other work"
        )
    if journal is None:
        old = _old_layers(writer, overwrite)
        _check_staged(writer)
        for layer in range(0 if coarsened else len(writer.names)):
            writer.coarsen(layer)
        writer.finish()
        journal = {"old": old, "listing": _new_listing(writer, old), "placed": []}
        _note(writer, journal)
    _replace(writer, journal)
    _list_labels(writer.address, writer.path, journal["listing"], ngff=writer.layout.ngff)
    _show_in_place_of_image(writer)
    forget_consolidated(writer.address, writer.path, zarr_format=writer.layout.zarr_format)
    for name in writer.names:
        writer.address.remove(writer.staged(name))
    _note(writer, {**journal, "done": True})
    if writer.staging == STAGING:
        _clear_direct(writer)


def _show_in_place_of_image(writer: LabelWriter) -> None:
    """In a store of results without pixels, make the image's group an image with the levels of the label.

    So every reader opens the store, displays the label in place of pixels, and finds all labels beside it.
    """
    layout, address, path = writer.layout, writer.address, writer.path
    group = find_group(address, path, zarr_format=layout.zarr_format)
    if group is not None and "multiscales" in group.ome and not is_stand_in(group):
        return
    ome = layout.multiscales(writer.name, folder=labels_path("", writer.name))
    attributes = {**(group.attributes if group else {}), **STAND_IN}
    if group is None or group.ome.get("multiscales") != ome["multiscales"]:
        write_group(
            address, path, with_ome(attributes, ome, ngff=layout.ngff), zarr_format=layout.zarr_format
        )


def _was_published_directly(writer: LabelWriter) -> bool:
    """Whether a label that belongs to no run was published before: it has no staged files and no journal."""
    return writer.staging == STAGING and not _staged(writer) and writer.is_in_place


def _staged(writer: LabelWriter) -> set[str]:
    """Names of the layers of the stack that are in the staging place."""
    return set(writer.names) & set(writer.address.children(writer.staged()))


def _clear_direct(writer: LabelWriter) -> None:
    """Remove the staging area and journal of a publication that belongs to no run."""
    writer.address.remove(writer.journal)
    for place in (STAGING, SCRATCH):
        if writer.address.is_local and not writer.address.list(place):
            writer.address.remove(place)


def _note(writer: LabelWriter, journal: dict[str, Any]) -> None:
    writer.address.write_bytes(writer.journal, json_bytes(journal))


def _check_staged(writer: LabelWriter) -> None:
    staged = _staged(writer)
    absent = [name for name in writer.names if name not in staged]
    if absent:
        raise BadStore(
            f"{writer.address.child(writer.path)}: nothing is staged for label {absent[0]!r}; run the command again"
        )


def _old_layers(writer: LabelWriter, overwrite: bool) -> list[str]:
    """Return the groups that the new stack replaces; `RunConflict` where it may not replace them."""
    address, path, zarr_format = writer.address, writer.path, writer.layout.zarr_format
    check_free(address, path, writer.name, overwrite=overwrite, zarr_format=zarr_format)
    group = find_group(address, labels_path(path, writer.name), zarr_format=zarr_format)
    old = (declared_layers(group) or [writer.name]) if group is not None else []
    for name in writer.names[1:]:
        if name not in old and _is_there(writer, name):
            raise RunConflict(
                f"{writer.address.child(writer.path)}: the stack {writer.name!r} needs the label name {name!r}, "
                "which another label has already; choose another --name"
            )
    return old


def _is_there(writer: LabelWriter, name: str) -> bool:
    place = labels_path(writer.path, name)
    return find_group(writer.address, place, zarr_format=writer.layout.zarr_format) is not None


def _new_listing(writer: LabelWriter, old: list[str]) -> list[str]:
    """Return the list of labels after publishing, the new stack at the position of the old one."""
    listed = listed_labels(writer.address, writer.path, zarr_format=writer.layout.zarr_format)
    first = next((index for index, name in enumerate(listed) if name in old), len(listed))
    before = [name for name in listed[:first] if name not in writer.names]
    after = [name for name in listed[first:] if name not in old and name not in writer.names]
    return [*before, *writer.names, *after]


def _replace(writer: LabelWriter, journal: dict[str, Any]) -> None:
    address = writer.address
    if not journal["placed"] and journal["old"]:
        others = [name for name in journal["listing"] if name not in writer.names]
        _list_labels(address, writer.path, others, ngff=writer.layout.ngff)
    for name in writer.names:
        if name not in journal["placed"]:
            _place(writer, name)
            journal["placed"].append(name)
            _note(writer, journal)
    for name in journal["old"]:
        if name not in writer.names:
            address.remove(labels_path(writer.path, name))


def _place(writer: LabelWriter, name: str) -> None:
    """Move one staged group to its place; on a disk this is one rename, so a group that is not staged was moved."""
    source, target = writer.staged(name), labels_path(writer.path, name)
    if writer.address.is_local and not writer.address.exists(source):
        return
    writer.address.remove(target)
    if writer.address.is_local:
        writer.address.move(source, target)
    else:
        # The staged copy is kept until all layers are in place and listed.
        writer.address.copy(source, target)


def _list_labels(address: Address, path: str, names: list[str], *, ngff: str) -> None:
    """Write the list of labels; other attributes of the group are kept."""
    zarr_format = zarr_format_of(ngff)
    place = labels_path(path)
    group = find_group(address, place, zarr_format=zarr_format) or Group(
        zarr_format=zarr_format, attributes={}
    )
    if group.ome.get("labels") == names:
        return
    attributes = json.loads(json.dumps(group.attributes))
    ome = {**group.ome, "labels": names}
    write_group(address, place, with_ome(attributes, ome, ngff=ngff), zarr_format=zarr_format)
