"""The pages of `terok top`, opened and decided on by keys, over real bundles, logs and a gate."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from terok_host.sidecars.vault.books.ledger import Limit
from terok_host.supervisor.ground import audit
from tests.standins.decisions import Operator
from tests.standins.gate import Rig, commit, git, make_upstream
from tests.standins.terminal import run, terminal, view


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


# --- pages ---


def wire(operator: Operator, container: str) -> None:
    """A sidecar JSON with a service on demand, beside what `hold` writes."""
    bundle = operator.layout.bundle(container)
    wiring = {
        "schema": 1,
        "container": container,
        "scope": "work",
        "bundle": bundle.root,
        "runtime_dir": operator.layout.runtime_dir(container),
        "sidecars": [
            {
                "name": "ssh",
                "start": "demand",
                "idle_seconds": 300,
                "listeners": [{"kind": "unix", "path": f"{operator.layout.runtime_dir(container)}/ssh-agent.sock"}],
                "settings": {},
            }
        ],
        "mounts": [],
        "shield": {"ruleset": bundle.ruleset, "expected": bundle.expected, "dnsmasq_conf": None, "probe": "x.test"},
    }
    Path(bundle.sidecar).write_text(json.dumps(wiring))
    os.chmod(bundle.sidecar, 0o600)


def log(operator: Operator, container: str, **fields: object) -> None:
    audit.append(operator.layout.bundle(container).audit, "shield", "connection", **fields)


def test_the_page_of_a_container(operator: Operator) -> None:
    operator.hold("box")
    wire(operator, "box")
    log(operator, "box", verdict="allowed", name="files.example", port=443, id=1)
    log(operator, "box", verdict="refused", name="evil.example", port=443, reason="no profile", allow="terok x")

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("evil.example:443")
            await shown.press("tab", "enter")
            await shown.shows("files.example:443")
            assert "1[connections]" in shown.text and " box: running" in shown.text
            await shown.press("2")
            await shown.shows("reason=")
            assert shown.text.index("evil.example") < shown.text.index("files.example")  # the newest first
            await shown.press("3")
            assert "would be allowed by: terok x" in shown.text
            await shown.press("enter")
            await shown.shows("GET https://evil.example/ would be refused.")
            await shown.press("slash", *"quay.io", "enter")
            await shown.shows("GET https://quay.io would be refused.")
            await shown.press("4")
            await shown.shows("ssh: not running, starts on demand")
            await shown.press("escape")
            await shown.shows("Waits for you: 1")

    run(drive())


def test_a_refusal_leads_to_its_reason(operator: Operator) -> None:
    operator.hold("box")
    wire(operator, "box")
    log(operator, "box", verdict="refused", name="evil.example", port=8443)

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("evil.example:8443")
            await shown.press("tab", "tab", "enter")
            await shown.shows("GET https://evil.example:8443/ would be refused.")

    run(drive())


def test_a_container_that_goes_while_its_page_is_open(operator: Operator) -> None:
    operator.hold("box")
    wire(operator, "box")
    log(operator, "box", verdict="refused", name="evil.example", port=443)

    async def drive() -> None:
        app = view(operator)
        async with terminal(app) as shown:
            await shown.shows("1 running")
            await shown.press("tab", "enter")
            await shown.shows("1[connections]")
            shutil.rmtree(operator.layout.bundle("box").root)
            app.look_again()
            await shown.shows("box: is gone")
            for key in ("2", "3", "enter", "4"):
                await shown.press(key)
            await shown.shows("Cannot be shown: ")
            await shown.press("escape")
            await shown.shows("Containers: 0")

    run(drive())


def test_a_proposal_is_shown_with_its_changes_and_approved(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "forge").mkdir()
    upstream = make_upstream(tmp_path / "forge" / "up.git")
    rig = Rig(tmp_path)
    rig.configure(upstream)
    rig.start()
    try:
        work = tmp_path / "work"
        git("clone", "-q", rig.url(), work, cwd=tmp_path)
        commit(work, "new.txt", "[bold]hello\x1b[31m\n")
        git("push", "-q", "origin", "HEAD:refs/heads/agent/new", cwd=work)

        async def drive() -> None:
            async with terminal(view(operator)) as shown:
                await shown.shows("create refs/heads/agent/new")
                await shown.press("enter")
                await shown.shows("+[bold]hello\N{REPLACEMENT CHARACTER}[31m")
                assert "$ terok gate diff proj 1" in shown.text
                await shown.press("a")
                assert "$ terok gate approve proj 1" in shown.text
                await shown.press("a")
                await shown.shows("Done: allow create")
                await shown.shows("It does not wait any more.")

        run(drive())
    finally:
        rig.stop()
    assert "agent/new" in git("for-each-ref", "--format=%(refname)", cwd=upstream).stdout


def test_the_page_of_a_limit(operator: Operator) -> None:
    operator.use("work", 10, 5, limit=Limit("work", "day", 10, None))

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("use more than 10")
            await shown.press("enter")
            await shown.shows("box anthropic: 10 requests, 5 tokens today")
            await shown.press("d", "d")
            await shown.shows("Done: deny")
            await shown.press("escape")
            await shown.shows("Nothing waits for you.")

    run(drive())


def test_help_and_leaving(operator: Operator) -> None:
    async def drive() -> None:
        app = view(operator)
        async with terminal(app) as shown:
            await shown.shows("Nothing waits for you.")
            await shown.press("question_mark")
            await shown.shows("Prices of 20")
            assert all(len(line) <= 80 for line in shown.lines())
            await shown.press("q")
            await shown.until(lambda: not app.is_running)

    run(drive())
