"""`terok config set` changes one key and nothing else; a project file narrows and never widens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.runtime.care import config as config_cli
from terok_host.runtime.kit import config, config_edit, config_file
from terok_host.runtime.kit.config_edit import put
from terok_host.supervisor.ground.layout import Layout

LAYOUT = Layout("/d", "/r", "/c")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "services:\n  mode: tcp\n"),
        ("# mine\n", "# mine\nservices:\n  mode: tcp\n"),
        ("services:\n", None),
        ("services: {}\n", None),
        ("services:\n  mode: socket  # why\n", "services:\n  mode: tcp  # why\n"),
        ("services: {mode: socket}\n", "services: {mode: tcp}\n"),
        ("services:\n    mode: 'socket'\nvault:\n  start: eager", "services:\n    mode: tcp\nvault:\n  start: eager"),
        ("vault: {start: eager}\n", "vault: {start: eager}\nservices:\n  mode: tcp\n"),
        ("services: {mode: socket}", "services: {mode: tcp}"),
    ],
)
def test_a_key_is_set_in_place(before: str, after: str | None) -> None:
    changed = put(before, "services.mode", "tcp")
    assert config_file.parse(changed, "x", config.kinds()) == {
        **config_file.parse(before, "x", config.kinds()),
        "services.mode": "tcp",
    }
    assert after is None or changed == after


def test_a_block_list_is_replaced_whole() -> None:
    before = "shield:\n  profiles:\n    - a\n    - b\n  enabled: true\n"
    after = put(before, "shield.profiles", '["c"]')
    assert config_file.parse(after, "x", config.kinds()) == {"shield.profiles": ("c",), "shield.enabled": True}


FILES = st.dictionaries(
    st.sampled_from(["vault.start", "vault.idle_seconds", "services.mode", "ssh.start", "ssh.idle_seconds"]),
    st.sampled_from(["eager", 7, "socket", "demand"]),
)


@given(FILES, st.sampled_from(["block", "flow"]), st.sampled_from(["vault.start", "services.mode", "gate.start"]))
def test_setting_a_key_keeps_all_others(values: dict[str, object], style: str, name: str) -> None:
    kinds = {key: each.metadata["kind"] for key, each in config.keys().items()}
    text, expected = "", {}
    for section in dict.fromkeys(key.partition(".")[0] for key in values):
        pairs = []
        for key, value in values.items():
            try:
                config_file.check(kinds[key], value)
            except ValueError:
                continue
            if key.startswith(section + "."):
                pairs.append((key.partition(".")[2], value))
                expected[key] = value
        if style == "flow":
            text += f"{section}: {{{', '.join(f'{key}: {value}' for key, value in pairs)}}}\n"
        else:
            text += f"{section}:\n" + "".join(f"  {key}: {value}\n" for key, value in pairs)
    new = "tcp" if name == "services.mode" else "eager"
    assert config_file.parse(put(text, name, new), "x", config.kinds()) == {**expected, name: new}


def test_show_prints_a_file_that_means_the_same() -> None:
    cfg = config.build(LAYOUT, {"services.mode": "tcp", "shield.forwarder": "10.0.2.2#5353", "restricted.memory": "2g"})
    values = config_cli.values_of(cfg)
    text = "".join(
        f"{name.partition('.')[0]}: {{{name.partition('.')[2]}: {config_edit.flow(value)}}}\n"
        for name, value in values.items()
        if name in ("services.mode", "shield.forwarder", "restricted.memory")
    )
    assert config_file.parse(text, "x", config.kinds()) == {
        "services.mode": "tcp",
        "shield.forwarder": "10.0.2.2#5353",
        "restricted.memory": "2g",
    }
