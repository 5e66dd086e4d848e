"""Who asked for a container's annotations: the operator, or the image.

Podman 4 gives a container the annotations of its image's manifest as well as those of the command line, and a hook
sees one list. An image that carries `terok.scope` would be handed the credentials of that scope by a user who merely
runs it. So the hook looks into Podman's own storage, which no image can write: an image whose manifest names
any of terok's keys is refused, and wiring serves only the container that has its name, which is the operator's choice
alone.

The storage's files (containers-storage(1)): `<graph>/<driver>-containers/containers.json`, for containers with --rm
also `<run>/<driver>-containers/volatile-containers.json`; `<graph>/<driver>-images/<id>/manifest`.
"""

from __future__ import annotations

import os

from ..ground.errors import TerokError
from ..ground.quick import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

PREFIX = "terok."
_FILE_MAX = 64 << 20


class Origin:
    """What Podman's storage says of a container.

    Attributes:
        identity: its id.
        names: what Podman calls it.
        image: id of its image; "" for a root file system without one.
        annotations: of the image's manifest; None when that could not be found.
        run: directories that hold one directory for each running container, `<id>/userdata/pidfile` in it.
    """

    def __init__(
        self,
        identity: str,
        names: list[str],
        image: str,
        annotations: dict[str, object] | None,
        run: list[str],
        places: list[str],
    ) -> None:
        self.identity, self.names, self.image, self.annotations = identity, names, image, annotations
        self.run, self._places = run, places

    @classmethod
    def find(cls, identity: str, bundle: str, config: dict[str, object]) -> Origin:
        """Look a container up by its id.

        Args:
            identity: the OCI state's id.
            bundle: its bundle directory, `<graph>/<driver>-containers/<id>/userdata`.
            config: its OCI configuration, whose mounts tell where the run directory is.

        Raises:
            TerokError: Podman's record of the container is not where it should be.
        """
        containers = os.path.dirname(os.path.dirname(bundle))
        run = _run_directories(config, identity)
        places = [os.path.join(containers, "containers.json")]
        places += [os.path.join(directory, "volatile-containers.json") for directory in run]
        for place in places:
            for entry in _list(place):
                if isinstance(entry, dict) and entry.get("id") == identity:
                    image = str(entry.get("image") or "")
                    names = [name for name in entry.get("names") or [] if isinstance(name, str)]
                    return cls(identity, names, image, _image_annotations(containers, image), run, places)
        raise TerokError(
            f"Podman's record of the container {identity[:12]} was not found beside {bundle}, "
            "so it cannot be told who asked for its annotations."
        )

    def names_of(self, pid: int) -> list[str]:
        """What Podman calls the running container whose init is `pid`; empty when there is none."""
        for directory in self.run:
            for identity in os.listdir(directory) if os.path.isdir(directory) else []:
                if _pid(os.path.join(directory, identity, "userdata", "pidfile")) == pid:
                    entries = [entry for place in self._places for entry in _list(place) if isinstance(entry, dict)]
                    return [
                        str(name)
                        for entry in entries
                        if entry.get("id") == identity
                        for name in entry.get("names") or []
                    ]
        return []

    def refuse_images_words(self) -> None:
        """Raises TerokError when the image itself carries annotations of terok."""
        ours = sorted(name for name in self.annotations or {} if name.startswith(PREFIX))
        if ours:
            raise TerokError(
                f"The image carries the annotation {ours[0]}, which only the operator may give to a container.",
                fix="do not run this image: its builder asks for your credentials",
            )

    def require_known_image(self) -> None:
        """Raises TerokError when it cannot be told whether the image gave the annotations."""
        if self.annotations is None:
            raise TerokError(
                f"The manifest of the image {self.image[:12]} was not found in Podman's storage, so it cannot be told "
                "whether the annotations are the operator's or the image's.",
                fix="start the container with `terok run`, or with the flags that `terok prepare` prints",
            )

    def require_name(self, container: str) -> None:
        """Raises TerokError when Podman does not call the container by this name."""
        if container not in self.names:
            from ..ground import paste

            called = self.names[0] if self.names else "nothing"
            raise TerokError(
                f"The wiring belongs to a container named {container}; Podman calls this one {called}.",
                fix=f"terok prepare {paste.quoted(called)}, or name the container {container}",
            )


def _run_directories(config: dict[str, object], identity: str) -> list[str]:
    """The `<run>/<driver>-containers` directories from which Podman mounts this container's hostname and the like."""
    directories: list[str] = []
    mounts = config.get("mounts")
    for mount in mounts if isinstance(mounts, list) else []:
        source = mount.get("source") if isinstance(mount, dict) else None
        above, middle, _ = source.partition(f"/{identity}/userdata/") if isinstance(source, str) else ("", "", "")
        if middle and above.startswith("/") and above not in directories:
            directories.append(above)
    return directories


def _image_annotations(containers: str, image: str) -> dict[str, object] | None:
    if not image:
        return {}
    graph, driver = os.path.split(containers.removesuffix("-containers"))
    manifest = _read(os.path.join(graph, f"{driver}-images", os.path.basename(image), "manifest"))
    if not isinstance(manifest, dict):
        return None
    annotations = manifest.get("annotations") or {}
    return annotations if isinstance(annotations, dict) else None


def _pid(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(20))
    except (OSError, ValueError):
        return 0


def _list(path: str) -> list[object]:
    document = _read(path)
    return document if isinstance(document, list) else []


def _read(path: str) -> object:
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_MAX + 1)
        return loads(content) if len(content) <= _FILE_MAX else None
    except (OSError, ValueError, RecursionError):
        return None
