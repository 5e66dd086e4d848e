"""The demonstration: one container through all of terok; exit 0 only if every claim was true.

It is honest about its upstreams: the provider is played by a TLS server of this script, the internet by two web servers
and a DNS server on addresses of the lab. Podman, crun, nftables, dnsmasq, ssh-keygen and terok are real.
Run it as `python -m demo.demo` from the root of the repository, or with `make demo`.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
from pathlib import Path

from demo.places import DENIED, Places
from tests.lab import leaks, scope
from tests.lab.house import House, in_lab
from tests.standins.upstream import Upstream

NAME, SCOPE, PROFILE = "demo", "demo", "demo"
REFUSED_WITHIN = 1.0
"""Seconds: a refusal is an answer, not a timeout."""


class Demo:
    """What was shown so far, and whether all of it was true."""

    def __init__(self) -> None:
        self.false: list[str] = []
        self.checks = 0
        self._bold = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")

    def part(self, title: str) -> None:
        """Begin a part."""
        print(f"\n{self._bold[0]}== {title}{self._bold[1]}", flush=True)

    def say(self, text: str) -> None:
        """Show some text, indented."""
        print("\n".join(f"   {line}" for line in text.rstrip().splitlines()), flush=True)

    def check(self, claim: str, truth: bool, detail: str = "") -> None:
        """State a claim and whether it is true."""
        self.checks += 1
        if not truth:
            self.false.append(claim)
        print(f" {'✓' if truth else '✗ NOT TRUE:'} {claim}", flush=True)
        if detail and not truth:
            self.say(detail)


class Inside:
    """Runs things in the container, as the untrusted work in it would."""

    def __init__(self, house: House, demo: Demo) -> None:
        self.house, self.demo = house, demo

    def run(self, script: str, *, stdin: str = "", show: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the container and show it."""
        if show:
            self.demo.say(f"container$ {script}")
        done = self.house.podman("exec", "--interactive", NAME, "sh", "-c", script, stdin=stdin, check=False)
        if show:
            self.demo.say(done.stdout + done.stderr)
        return done


def terok(
    house: House, demo: Demo, *words: str, stdin: str = "", show: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run terok on the host and show it."""
    demo.say(f"host$ terok {shlex.join(words)}")
    done = house.terok(*words, stdin=stdin)
    if show:
        demo.say(done.stdout + done.stderr)
    return done


def main() -> int:
    """Show everything; returns the exit code."""
    demo = Demo()
    demo.part("an operator's home, and a small local image (no image registry is asked)")
    house = House.build(setup=False)
    try:
        with contextlib.ExitStack() as stack:
            show(house, demo, stack)
    finally:
        house.destroy()
    demo.part("result")
    print(f"{demo.checks - len(demo.false)} of {demo.checks} claims were true.")
    for claim in demo.false:
        print(f" ✗ {claim}")
    return 1 if demo.false else 0


def show(house: House, demo: Demo, stack: contextlib.ExitStack) -> None:
    """The demonstration itself."""
    places = Places.choose(house)
    demo.say(f"image {house.image}: busybox, curl, git and ssh from this machine's own files")
    terok(house, demo, "setup")

    demo.part("stand-in upstreams on the host (this is a demonstration: no real provider is contacted)")
    provider, allowed, denied = stack.enter_context(places.serve())
    demo.say(places.description)

    demo.part("on the host: a scope with a credential and an SSH key, and what its containers may reach")
    secrets = furnish(house, demo, places)

    house.podman("run", "--rm", house.image, "true")  # Podman's own first-time work
    before = leaks.take(house, bundles=False)
    demo.part("start")
    words = ["run", NAME, "--scope", SCOPE, "--profiles", PROFILE, "--", "--detach", house.image, "sleep", "1000"]
    began = time.monotonic()
    terok(house, demo, *words, show=False)
    demo.say(f"(started in {time.monotonic() - began:.2f} s; it was let go only when every service was ready)")
    inside = Inside(house, demo)

    use_the_vault(demo, inside, places, provider)
    look_for_secrets(house, demo, inside, secrets)
    use_the_network(demo, inside, places, allowed, denied)
    sign(house, demo, inside)

    demo.part("what the operator sees")
    status = terok(house, demo, "status").stdout
    demo.check(
        "status lists the supervisor, vault, ssh and dnsmasq",
        all(word in status for word in ("supervisor", "vault", "ssh", "dnsmasq")),
    )

    demo.part("stop")
    began = time.monotonic()
    house.podman("stop", "--time", "0", NAME)
    demo.say(f"host$ podman stop --time 0 {NAME}    ({time.monotonic() - began:.2f} s)")
    rest = leaks.left(house, before, within=1, bundles=False)
    demo.check("no process, socket, mount, namespace or runtime file of it is left", not rest, "\n".join(rest))
    house.podman("rm", NAME)
    terok(house, demo, "cleanup", NAME)
    demo.check("after the cleanup its state bundle is gone", not Path(house.bundle(NAME).root).exists())


def furnish(house: House, demo: Demo, places: Places) -> list[bytes]:
    """Store a credential and a key; returns the byte strings that no container may ever see."""
    profiles = Path(house.layout.profiles)
    profiles.mkdir(parents=True)
    (profiles / f"{PROFILE}.txt").write_text("".join(f"{line}\n" for line in places.profile))
    demo.say(f"shield profile {PROFILE!r}: {', '.join(places.profile)}")
    terok(house, demo, *scope.add_words(SCOPE, places.provider_url, places.authority), stdin=scope.SECRET + "\n")
    key = house.base / "id"
    house.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo key", "-f", str(key)])
    terok(house, demo, "ssh", "import", str(key), "--scope", SCOPE)
    lines = [line for line in key.read_text().splitlines() if not line.startswith("-")]
    key.unlink()
    # the second to last lines of the key file: the first ones hold the public half
    return [scope.SECRET.encode(), *(line.encode() for line in lines[2:])]


def look_for_secrets(house: House, demo: Demo, inside: Inside, secrets: list[bytes]) -> None:
    """Search what the container can read, and what anybody on the host can."""
    demo.part("the container holds no secret")
    environment = inside.run("env | grep -E 'TEROK|ANTHROPIC|SSH_' | sort").stdout
    demo.check(
        "its environment names the vault and the signer",
        "TEROK_URL_ANTHROPIC=" in environment and "SSH_AUTH_SOCK=" in environment,
    )
    archive = house.base / "container.tar"
    with archive.open("wb") as file:
        subprocess.run(
            [
                "podman",
                "exec",
                NAME,
                "sh",
                "-c",
                "tar -cf - $(ls -d /* | grep -vE '^/(proc|sys|dev)$') 2>/dev/null; cat /proc/*/environ /proc/*/cmdline",
            ],
            stdout=file,
            env=house.env,
            check=False,
            timeout=60,
        )
    content = archive.read_bytes()
    archive.unlink()
    demo.say(f"searched {len(content) >> 20} MiB: every file it can read, environment and arguments of its processes")
    demo.check(
        "neither the credential nor the SSH key is among it",
        not any(secret in content for secret in secrets) and b"ANTHROPIC_API_KEY=" in content,
    )
    public = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path))
    inspected = house.podman("inspect", NAME).stdout.encode()
    demo.check(
        "nor in any process's arguments on the host, nor in `podman inspect`",
        not any(s in public + inspected for s in secrets),
    )
    data = Path(house.layout.data)
    plain = [path for path in data.rglob("*") if path.is_file() and any(s in path.read_bytes() for s in secrets)]
    demo.check("nor in plain text in any file of terok's", not plain, "\n".join(map(str, plain)))


def readable(path: Path) -> bool:
    """Whether the process behind a /proc file still exists."""
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def use_the_vault(demo: Demo, inside: Inside, places: Places, provider: Upstream) -> None:
    """The provider's API at its own address, and through both other ways to the vault.

    Without the lab the container is not in the airlock, where alone the provider's own address leads to the vault.
    """
    demo.part("the vault swaps the phantom token for the real credential")
    ask = '-H "x-api-key: $ANTHROPIC_API_KEY" -H "content-type: application/json" -d \'{"hello": "world"}\''
    own = places.provider_url
    for way, address in (
        *([(f"{own}, with no configuration", f"{own}/v1/messages")] if in_lab() else []),
        ("http://127.0.0.1:9419", '"$TEROK_URL_ANTHROPIC/v1/messages"'),
        ("/run/terok/vault.sock", "--unix-socket /run/terok/vault.sock http://vault/v1/messages"),
    ):
        seen = len(provider.seen)
        done = inside.run(f"curl -sS -o /dev/null -w '%{{http_code}}\\n' {ask} {address}")
        demo.check(f"{way}: the provider answered", done.stdout.strip() == "200", done.stdout + done.stderr)
        requests = provider.seen[seen:]
        headers = dict(requests[-1].headers) if requests else {}
        demo.say(f"the provider saw over TLS: x-api-key: {headers.get('x-api-key', '(nothing)')[:13]}...")
        demo.check(f"{way}: the provider saw the real credential", headers.get("x-api-key") == scope.SECRET)
        phantom = inside.run("echo $ANTHROPIC_API_KEY", show=False).stdout.strip()
        demo.check(f"{way}: and not the phantom token", bool(phantom) and phantom not in str(headers))
    done = inside.run("curl -sS -w '\\n%{http_code}\\n' -H 'x-api-key: guessed' $TEROK_URL_ANTHROPIC/v1/models")
    demo.check(
        "a token that was never minted is refused, with the reason",
        done.stdout.strip().endswith("401") and "reason" in done.stdout,
    )


def use_the_network(demo: Demo, inside: Inside, places: Places, allowed: Upstream, denied: Upstream) -> None:
    """An allowed name and a denied one."""
    demo.part("default-deny network")
    done = inside.run(f"curl -sS -o /dev/null -w '%{{http_code}}\\n' {places.allowed_url}")
    demo.check("the allowed name answers", done.stdout.strip() == "200" and len(allowed.seen) == 1, done.stderr)
    done = inside.run(f"nslookup {DENIED} 127.0.0.1")
    demo.check(
        "a name that is not allowed does not exist", "NXDOMAIN" in done.stdout + done.stderr, done.stdout + done.stderr
    )
    done = inside.run(f"curl -sS -w '%{{time_total}}\n' {places.denied_url}")
    took = float(done.stdout.strip() or "inf")  # curl's own clock: how long podman exec takes is another matter
    demo.check("its address is refused at once", done.returncode == 7 and took < REFUSED_WITHIN, done.stderr)
    demo.check("and its server, which does listen, saw nothing", denied.connections == 0)


def sign(house: House, demo: Demo, inside: Inside) -> None:
    """A signature made in the container, verified on the host."""
    demo.part("the signer")
    listed = inside.run("ssh-add -l").stdout
    demo.check("the container sees the key", "demo key" in listed)
    message = "signed in the container\n"
    script = "cd /tmp && ssh-add -L >key.pub && cat >message && ssh-keygen -q -Y sign -n git -f key.pub message"
    inside.run(script, stdin=message)
    made = inside.run("cat /tmp/message.sig").stdout
    public = inside.run("cat /tmp/key.pub", show=False).stdout
    signature, signers = house.base / "message.sig", house.base / "signers"
    signature.write_text(made)
    signers.write_text(f"demo {public}")
    verify = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "demo", "-n", "git", "-s", str(signature)]
    verified = house.run(verify, stdin=message, check=False)
    demo.say("host$ ssh-keygen -Y verify ...\n" + verified.stdout + verified.stderr)
    demo.check("its signature verifies on the host", verified.returncode == 0 and "Good" in verified.stdout)
    forged = house.run(verify, stdin="something else\n", check=False)
    demo.check("and another message does not", forged.returncode != 0)
    inside.run("cd /tmp && ssh-keygen -q -Y sign -n payroll -f key.pub message")
    refusal = Path(house.bundle(NAME).audit).read_text().splitlines()[-1]
    demo.say(f"audit.jsonl: {refusal}")
    demo.check("a signature for another purpose is refused, and the audit says why", '"refused"' in refusal)


if __name__ == "__main__":
    sys.exit(main())
