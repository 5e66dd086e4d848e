"""Whose words a container's annotations are: an image cannot ask for what is the operator's to give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor.ground import layout
from tests.lab import image
from tests.lab.house import House

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
ANY_SIGNATURE = json.dumps({"default": [{"type": "insecureAcceptAnything"}]})


def oci_image(directory: Path, annotations: dict[str, str]) -> None:
    """An image as a directory (OCI image layout 1.0.0) whose manifest carries the annotations."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    layer = put(image.build(), "layer.v1.tar")
    rootfs = {"type": "layers", "diff_ids": [layer["digest"]]}
    platform = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin:/usr/bin"]}}
    config = put(json.dumps({**platform, "rootfs": rootfs}).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer], "annotations": annotations}
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@pytest.fixture
def hostile(house: House, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The id of an image with the annotations that the test is parametrised with."""
    oci_image(tmp_path / "image", request.param)
    policy = tmp_path / "policy.json"
    policy.write_text(ANY_SIGNATURE)
    pulled = house.podman("pull", "--quiet", "--signature-policy", str(policy), f"oci:{tmp_path / 'image'}")
    identity = pulled.stdout.split()[-1]
    yield identity
    house.podman("rmi", "--force", identity)


@pytest.mark.parametrize(
    "hostile",
    [
        {layout.ANNOTATION_SCOPE: "work"},
        {layout.ANNOTATION_PROFILES: "base"},
        {layout.ANNOTATION_SIDECAR: "/home/somebody/.local/share/terok/containers/box/sidecar.json"},
    ],
    ids=lambda annotations: next(iter(annotations)),
    indirect=True,
)
def test_an_image_that_carries_our_annotations_gets_nothing(house: House, name: str, hostile: str) -> None:
    """Podman 4 hands an image's annotations on to its container, which is refused then; Podman 5.4 does not."""
    carried = json.loads(house.podman("image", "inspect", hostile).stdout)[0]["Annotations"]
    assert any(each.startswith("terok.") for each in carried)
    house.podman("create", "--name", name, hostile, "sh", "-c", "echo it ran; ls /run/terok")
    handed = json.loads(house.podman("container", "inspect", name).stdout)[0]["Config"]["Annotations"] or {}
    done = house.podman("start", "--attach", name, check=False)
    house.podman("rm", "--force", "--time", "0", "--ignore", name)
    if any(each.startswith("terok.") for each in handed):
        assert done.returncode != 0 and "it ran" not in done.stdout
    else:
        assert "it ran" in done.stdout and ".sock" not in done.stdout


@pytest.mark.parametrize("hostile", [{layout.ANNOTATION_SCOPE: "work"}], indirect=True)
def test_such_an_image_is_refused_under_terok_too_and_the_reason_is_kept(house: House, name: str, hostile: str) -> None:
    done = house.terok("run", name, "--", "--detach", hostile, *PATIENT, check=False)
    house.podman("rm", "--force", "--time", "0", "--ignore", name)
    assert done.returncode != 0
    reason = Path(house.bundle(name).hook_error).read_text()
    assert "The image carries the annotation terok.scope" in reason


@pytest.mark.parametrize("hostile", [{"org.example.title": "nothing of ours"}], ids=["other"], indirect=True)
def test_other_annotations_of_an_image_do_no_harm(house: House, name: str, hostile: str) -> None:
    house.terok("run", name, "--", "--rm", hostile, "true")


def test_wiring_serves_only_the_container_of_its_name(house: House, name: str) -> None:
    printed: list[str] = json.loads(house.terok("prepare", name, "--json").stdout)
    printed[printed.index("--name") + 1] = f"{name}-x"
    done = house.podman("run", "--detach", *printed, house.image, *PATIENT, check=False)
    house.podman("rm", "--force", "--time", "0", "--ignore", f"{name}-x")
    assert done.returncode != 0
    assert f"belongs to a container named {name}" in Path(house.bundle(name).hook_error).read_text()


@pytest.fixture
def pod(house: House, name: str) -> Iterator[str]:
    made = f"{name}-pod"
    house.podman("pod", "create", "--name", made)
    yield made
    house.podman("pod", "rm", "--force", "--time", "0", made)


def in_pod(house: House, name: str, pod: str) -> list[str]:
    printed: list[str] = json.loads(house.terok("prepare", name, "--network", "auto", "--json").stdout)
    at = printed.index("--network")
    return [*printed[:at], *printed[at + 2 :], "--pod", pod]


def test_the_first_container_of_a_pod_is_protected(house: House, name: str, pod: str) -> None:
    house.podman("run", "--detach", *in_pod(house, name, pod), house.image, *PATIENT)
    house.podman("run", "--detach", "--pod", pod, "--name", f"{name}-y", house.image, *PATIENT)
    assert "NXDOMAIN" in house.podman("exec", name, "nslookup", "not-allowed.test", check=False).stdout
    # what joins later is under the same firewall
    done = house.podman("exec", f"{name}-y", "nc", "-w", "3", "203.0.113.5", "80", check=False)
    assert "No route to host" in done.stderr


def test_a_pod_that_others_use_already_is_refused(house: House, name: str, pod: str) -> None:
    house.podman("run", "--detach", "--pod", pod, "--name", f"{name}-y", house.image, *PATIENT)
    done = house.podman("run", "--detach", *in_pod(house, name, pod), house.image, *PATIENT, check=False)
    assert done.returncode != 0
    assert "Other processes run in the pod's network" in Path(house.bundle(name).hook_error).read_text()
