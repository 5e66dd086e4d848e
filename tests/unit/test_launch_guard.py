"""What may stand after `--`: podman's words that would undo the sandbox are refused in every spelling."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.runtime.host import preconditions
from terok_host.runtime.host.flags import ALIASES, SHORT, SWITCHES, VALUED, parse
from terok_host.runtime.launch import SANDBOX_MANAGED_FLAGS, refusals, reject_managed_flags, reject_managed_volumes
from terok_host.runtime.launch.refusals import refuse
from terok_host.supervisor.ground.errors import Exit, TerokError
from terok_host.supervisor.ground.layout import Layout, outer_uid

MANAGED = sorted(SANDBOX_MANAGED_FLAGS)
HARMLESS_VALUED = sorted(
    VALUED
    - {flag[2:] for flag in SANDBOX_MANAGED_FLAGS}
    - set(refusals.WEAKENING)
    - {"volume", "mount", "tmpfs", "secret"}
)
HARMLESS_SWITCHES = sorted(SWITCHES - set(refusals.WEAKENING))
VALUES = st.text(st.characters(codec="ascii", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)


def long_flags() -> st.SearchStrategy[list[str]]:
    """A harmless flag with its value, in a spelling that podman reads."""
    valued = st.builds(
        lambda name, value, joined: [f"--{name}={value}"] if joined else [f"--{name}", value],
        st.sampled_from(HARMLESS_VALUED),
        VALUES,
        st.booleans(),
    )
    switch = st.sampled_from(HARMLESS_SWITCHES).map(lambda name: [f"--{name}"])
    short = st.sampled_from(["e", "u", "w", "h", "l", "m", "p"]).flatmap(
        lambda letter: VALUES.flatmap(
            lambda value: st.sampled_from([[f"-{letter}", value], [f"-{letter}{value}"], [f"-it{letter}", value]])
        )
    )
    return st.one_of(valued, switch, short)


FLAGS = st.lists(long_flags(), max_size=5).map(lambda lists: [word for words in lists for word in words])


def managed() -> st.SearchStrategy[list[str]]:
    """A managed flag in one of its spellings."""
    names = [flag[2:] for flag in MANAGED] + [alias for alias, name in ALIASES.items() if f"--{name}" in MANAGED]
    return st.builds(
        lambda name, value, joined: [f"--{name}={value}"] if joined else [f"--{name}", value],
        st.sampled_from(names),
        VALUES,
        st.booleans(),
    )


@given(FLAGS, managed(), FLAGS)
def test_a_managed_flag_is_found_wherever_it_stands(before: list[str], bad: list[str], after: list[str]) -> None:
    with pytest.raises(TerokError) as caught:
        reject_managed_flags([*before, *bad, *after, "image", "true"])
    assert caught.value.code == Exit.REFUSED


@given(FLAGS, st.lists(st.one_of(VALUES, st.sampled_from(MANAGED)), max_size=4))
def test_the_command_of_the_image_may_hold_anything(flags: list[str], command: list[str]) -> None:
    reject_managed_flags([*flags, "image", *command])
    assert parse([*flags, "image", *command]).rest == ["image", *command]


def test_two_dashes_end_the_flags() -> None:
    assert parse(["-d", "--", "--name"]).rest == ["--name"]


@given(VALUES.filter(lambda name: name not in SWITCHES | VALUED | set(ALIASES) and "=" not in name))
def test_a_flag_that_is_not_known_must_be_unambiguous(name: str) -> None:
    if name == "" or name.startswith("-"):
        return
    with pytest.raises(TerokError, match="cannot tell"):
        reject_managed_flags([f"--{name}", "image"])
    reject_managed_flags([f"--{name}=value", "image"])


def test_a_flag_without_its_value() -> None:
    with pytest.raises(TerokError, match="needs a value"):
        parse(["--env"])
    with pytest.raises(TerokError, match="needs a value"):
        parse(["-itv"])


@pytest.mark.parametrize(
    "words",
    [
        ["--privileged"],
        ["--privileged=true"],
        ["--privileged=1"],
        ["--pod", "other"],
        ["--pod=new:mine"],
        ["--security-opt", "seccomp=unconfined"],
        ["--security-opt=seccomp:unconfined"],
        ["--security-opt=apparmor=unconfined"],
        ["--security-opt", "label=disable"],
        ["--security-opt", "label=type:spc_t"],
        ["--security-opt", "no-new-privileges=false"],
        ["--security-opt", "unmask=ALL"],
        ["--security-opt", "label=nested"],
        ["--pid", "host"],
        ["--pid=container:other"],
        ["--ipc=host"],
        ["--uidmap", "0:0:1"],
        ["--env-host"],
        ["--remote"],
        ["-r"],
        ["-itr"],
        ["--url=ssh://x"],
        ["--module", "m"],
        ["--runtime", "/usr/bin/wrapper"],
        ["--runtime=runc"],
    ],
)
def test_what_weakens_the_sandbox_is_refused(words: list[str]) -> None:
    with pytest.raises(TerokError) as caught:
        reject_managed_flags([*words, "image"])
    assert caught.value.code == Exit.REFUSED
    assert caught.value.fix


@pytest.mark.parametrize(
    "words",
    [
        ["--privileged=false"],
        ["--security-opt", "no-new-privileges"],
        ["--security-opt", "no-new-privileges:true"],
        ["--security-opt", "label=level:s0:c1,c2"],
        ["--security-opt", "mask=/proc/x"],
        ["--security-opt", "seccomp=/etc/profile.json"],
        ["--pid", "private"],
        ["--ipc=shareable"],
        ["-it", "-e", "--name"],
    ],
)
def test_what_does_not_weaken_it_may_stay(words: list[str]) -> None:
    reject_managed_flags([*words, "image"])


@pytest.mark.parametrize(
    "words",
    [
        ["-v", "/x:/run/terok"],
        ["-v/x:/run/terok"],
        ["-v=/x:/run/terok:ro"],
        ["-itv", "/x:/run/terok"],
        ["--volume", "/x:/run//terok/"],
        ["--volume=/x:/srv/../run/terok/vault.sock"],
        ["--volume=/x:/var/run/terok"],
        ["--volume=/x:/var/run"],
        ["--volume=/x:/run"],
        ["-v", "/run/terok"],
        ["-v", "name:/etc"],
        ["-v", "/x:/etc/resolv.conf"],
        ["-v", "/x:/"],
        ["-v", "/x:/proc/self/root/run/terok"],
        ["-v", "/x:/proc/1/root/etc"],
        ["--mount", "type=bind,src=/x,dst=/run/terok"],
        ["--mount", "type=bind,source=/x,target=/run/terok/sub"],
        ["--mount=type=tmpfs,destination=/run"],
        ["--mount", 'type=bind,"src=/a,b",target=/run/terok'],
        ["--mount", "type=bind,src=/x,Target=/run/terok"],
        ["--tmpfs", "/run"],
        ["--tmpfs=/run/terok:size=1m"],
        ["--secret", "name,type=mount,target=/run/terok/env"],
        ["-v", "/x:/usr/local/share/terok-sandbox"],
    ],
)
def test_a_mount_over_ours_is_refused(words: list[str]) -> None:
    with pytest.raises(TerokError) as caught:
        reject_managed_volumes([*words, "image"])
    assert caught.value.code == Exit.REFUSED
    assert "overlaps" in caught.value.what


@pytest.mark.parametrize(
    "words",
    [
        ["-v", "/run/terok:/srv"],
        ["-v", "/x:/run/terok-other"],
        ["-v", "/x:/running"],
        ["-v", "/x:/etc/resolv.conf.d"],
        ["--tmpfs", "/tmp"],
        ["--mount", "type=bind,src=/run,dst=/work"],
        ["--secret", "name,target=file"],
        ["-v", "/proc/self/root/run/terok:/x"],
    ],
)
def test_a_mount_beside_ours_may_stay(words: list[str]) -> None:
    reject_managed_volumes([*words, "image", "-v", "/x:/run/terok"])


SEGMENTS = st.lists(st.sampled_from(["run", "terok", "var", ".", "..", "", "etc", "x"]), max_size=8)


@given(SEGMENTS)
def test_a_path_is_judged_by_where_it_leads(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    assert refusals.normal(refusals.normal(path)) == refusals.normal(path)
    assert refusals.overlaps(path, path + "/below")
    assert refusals.overlaps(path + "/sub/..", path)


def test_sources_of_ours_stay_out(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "data"), str(tmp_path / "run"), str(tmp_path / "config"))
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for source in (tmp_path, tmp_path / "data", tmp_path / "data" / "vault", tmp_path / "link", tmp_path / "run"):
        for words in (["-v", f"{source}:/x"], ["--mount", f"type=bind,src={source},dst=/x"]):
            with pytest.raises(TerokError) as caught:
                refusals.refuse(parse([*words, "image"]), layout)
            assert caught.value.code == Exit.REFUSED
    refusals.refuse(parse(["-v", f"{tmp_path}/other:/x", "-v", "named:/y", "image"]), layout)


def test_every_short_flag_leads_to_a_known_one() -> None:
    assert set(SHORT.values()) | set(ALIASES.values()) <= SWITCHES | VALUED
    assert not SWITCHES & VALUED


@pytest.mark.parametrize(
    "source",
    [
        "/run/podman/podman.sock",
        "/var/run/docker.sock",
        "/run",
        "/run/podman",
        "/run/user/{uid}/podman",
        "/run/user/{uid}",
    ],
)
@pytest.mark.parametrize("words", [["-v", "{}:/x"], ["--mount=type=bind,src={},dst=/x"], ["-v{}:/x:ro"]], ids=str)
def test_a_container_gets_no_engine_to_start_others(words: list[str], source: str, tmp_path: Path) -> None:
    place = source.format(uid=outer_uid())
    layout = Layout(str(tmp_path / "d"), str(tmp_path / "r"), str(tmp_path / "c"))
    parsed = parse([*(word.format(place) for word in words), "image"])
    with pytest.raises(TerokError, match="could start containers") as caught:
        refuse(parsed, layout)
    assert "--allow-engine-socket" in (caught.value.fix or "")
    refuse(parsed, layout, allow_engine_socket=True)


@pytest.mark.parametrize("name", ["CONTAINER_HOST", "CONTAINER_CONNECTION"])
def test_a_podman_that_asks_a_service_is_refused(name: str) -> None:
    preconditions.refuse_remote({"PATH": "/usr/bin", name: ""})
    with pytest.raises(TerokError, match=name):
        preconditions.refuse_remote({name: "unix:///tmp/x"})
