"""What the documents say about launching is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from terok_host.runtime import launch
from terok_host.runtime.care import config
from terok_host.runtime.kit import config_file
from terok_host.runtime.kit.config import Config, RestrictedConfig, keys, kinds
from terok_host.runtime.launch import restricted
from terok_host.runtime.project import file as project_file
from terok_host.supervisor.ground.layout import Layout

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_restricted_mode() -> None:
    text = (DOCS / "restricted.md").read_text()
    limits = RestrictedConfig()
    assert ", ".join(restricted.CAPABILITIES) in text
    assert f"`restricted.pids` ({limits.pids})" in text
    assert f"`restricted.memory` ({limits.memory})" in text
    for path in restricted.POLICIES:
        assert f"`{path}`" in text
    assert all(place in text for place in ("/tmp", "/var/tmp", "/run"))  # podman run --read-only-tmpfs


def test_restricted_flags_are_what_the_table_says() -> None:
    words = restricted.flags(RestrictedConfig(pids=7, memory="1g", read_only=False))
    assert words[:4] == ["--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
    assert [after for word, after in zip(words, words[1:], strict=False) if word == "--cap-add"] == list(
        restricted.CAPABILITIES
    )
    assert words[-4:] == ["--pids-limit", "7", "--memory", "1g"]
    assert restricted.flags(RestrictedConfig())[-1] == "--read-only"


def test_every_name_of_the_api_is_documented() -> None:
    text = (DOCS / "launch.md").read_text()
    for name in launch.__all__:
        assert re.search(rf"\b{name}\b", text), name
    for flag in launch.SANDBOX_MANAGED_FLAGS:
        assert f"`{flag}`" in text, flag


def test_the_configuration_page_has_the_defaults_and_what_projects_may_set() -> None:
    text = (DOCS / "configuration.md").read_text()
    values = config_file.parse(text.partition("```yaml\n")[2].partition("```")[0], "configuration.md", kinds())
    cfg = Config(Layout("/d", "/r", "/c"))
    assert values == {name: field.default for name, field in keys().items()}
    assert config.values_of(cfg).keys() == values.keys()
    for name, field in keys().items():
        assert field.metadata["doc"] in text, name


def test_the_configuration_page_has_every_key_of_a_project_file() -> None:
    text = (DOCS / "configuration.md").read_text()
    for name in list(project_file.keys()):
        assert f"`{name}`" in text, name
