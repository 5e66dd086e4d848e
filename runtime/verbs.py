"""The table of all verbs: what a person wants, the verb, the function that has it, one line of help.

A function is named as `module:function`, below `runtime/`; its arguments and its description stand above and in it
(`kit/verb.py`). Help, completion and man pages are made from this table.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import dataclass

    from .kit.verb import Command
else:
    from ..supervisor.ground.frozen import dataclass


@dataclass(frozen=True)
class Verb:
    """One row.

    path: the words that lead to it: `run`, `vault list`.
    target: `module:function` below `runtime/`; empty for a group, which only has verbs of its own.
    line: one line of help.
    about: a group's description.
    bare: the path of the verb of a group that is meant when none is written; empty for none.
    """

    path: str
    target: str
    line: str
    about: str = ""
    bare: str = ""

    @property
    def name(self) -> str:
        """Its last word."""
        return self.path.rpartition(" ")[2]

    @property
    def parent(self) -> str:
        """The path of the group that it is in; empty at the top."""
        return self.path.rpartition(" ")[0]

    def load(self) -> Command:
        """Import its module and return what it declares."""
        from importlib import import_module

        module, _, function = self.target.partition(":")
        command: Command = getattr(import_module(f"{__package__}.{module}"), function)
        return command


RUN = (
    Verb("start", "agent.cli:start", "start an agent in this project, or continue where it was"),
    Verb("init", "project.cli:init", "write a .terok.yml for this project"),
    Verb("trust", "project.cli:trust", "show what a project's .terok.yml asks for, and trust it"),
    Verb("shell", "agent.cli:shell", "open a shell in a running container"),
    Verb("stop", "agent.cli:stop", "stop containers"),
    Verb("rm", "agent.cli:rm", "remove containers with their tokens and state"),
    Verb("run", "launch.cli:run", "start a container with its services"),
    Verb("prepare", "launch.cli:prepare", "write a container's wiring and print its podman flags"),
    Verb("cleanup", "launch.cli:cleanup", "revoke a container's tokens and delete its state"),
    Verb("heal", "care.heal:run", "start a new supervisor for a running container that has lost its own"),
)
SEE = (
    Verb("top", "top.cli:run", "show all containers live, and decide what waits for you"),
    Verb("ps", "agent.cli:ps", "list the containers that terok prepared"),
    Verb("status", "care.status:run", "show containers, their supervisors and sidecars"),
    Verb("logs", "care.logs:run", "show what a container did and what was refused"),
    Verb("metrics", "care.metrics:run", "print metrics for Prometheus, or serve them at a Unix socket"),
    Verb("explain", "vault.explain:run_explain", "say what would happen to a request of a container"),
)
ALLOW = (
    Verb("pending", "queue.cli:pending", "show everything that waits for your decision"),
    Verb("decide", "queue.cli:decide", "answer what waits: a connection, a proposal, a signature, a limit"),
    Verb(
        "shield",
        "",
        "the egress firewall of a container",
        "Change, show and explain the egress firewall of a container. A name, address or range that is not allowed is "
        "refused at once and logged.",
    ),
    Verb("shield allow", "shield.cli:allow", "allow a destination, now and after restarts"),
    Verb("shield deny", "shield.cli:deny", "deny a destination and end its connections; wins over every allow entry"),
    Verb("shield forget", "shield.cli:forget", "delete an allow or deny entry"),
    Verb("shield down", "shield.cli:down", "allow everything but private ranges, until `up` or a restart"),
    Verb("shield up", "shield.cli:up", "return to default deny; end connections that are not allowed"),
    Verb("shield bypass", "shield.cli:bypass", "`down` for a limited time"),
    Verb("shield quarantine", "shield.cli:quarantine", "isolate the container; survives restarts; undo with `up`"),
    Verb("shield learn", "shield.cli:learn", "record destinations instead of refusing them"),
    Verb("shield ask", "shield.cli:ask", "hold connections to unknown names until you decide"),
    Verb("shield pending", "shield.cli:pending", "show the connections that wait for your decision"),
    Verb("shield decide", "shield.cli:decide", "answer one of them: allow or deny, once, for a time, for good"),
    Verb("shield reset", "shield.cli:reset", "delete every allow and deny entry made at runtime"),
    Verb("shield rules", "shield.cli:rules", "show the firewall rules that the kernel has"),
    Verb("shield resolve", "shield.cli:resolve", "resolve every allowed name again and show the answers"),
    Verb("shield status", "shield.cli:status", "show mode, entries, and whether the firewall is as expected"),
    Verb("shield profiles", "shield.cli:profiles", "list the profiles"),
    Verb("shield preview", "shield.cli:preview", "show what profiles allow, without a container"),
    Verb("shield logs", "shield.cli:logs", "show what was allowed, refused and changed"),
    Verb("shield watch", "shield.cli:watch", "show live what is allowed and refused; keys allow or deny it"),
)
SECRETS = (
    Verb("auth", "vault.auth:run", "log in to a provider, or import an agent's login"),
    Verb(
        "vault",
        "",
        "credentials and their encryption",
        "Store credentials, choose how the vault is unlocked, and show what containers did with it.",
    ),
    Verb("vault status", "vault.locks:status", "show whether the vault is unlocked, how, and what needs attention"),
    Verb("vault unlock", "vault.locks:unlock", "unlock the vault until the next reboot or `lock`"),
    Verb("vault lock", "vault.locks:lock", "lock the vault; running containers get 503 until it is unlocked"),
    Verb("vault list", "vault.items:list_items", "list the credentials, without their secrets"),
    Verb("vault add", "vault.items:add", "store a credential"),
    Verb("vault set", "vault.items:change", "change what a credential allows, without its secret"),
    Verb("vault rotate", "vault.items:rotate", "replace a credential's secret"),
    Verb("vault remove", "vault.items:remove", "delete a credential"),
    Verb("vault show", "vault.items:show", "show one credential"),
    Verb("vault import", "vault.transfer:run_import", "import credentials from an export or an agent's own file"),
    Verb("vault export", "vault.transfer:run_export", "write a copy of the vault, encrypted with a passphrase"),
    Verb("vault routes", "vault.routes:run_routes", "compile the roster into routes.json"),
    Verb("vault check", "vault.check:run_check", "make one request upstream with a credential"),
    Verb("vault tls", "vault.termination:run_tls", "show or change where HTTPS at the providers' own hosts is on"),
    Verb("vault authority", "vault.authority:run_authority", "show the certificate that a container trusts"),
    Verb("vault clean", "vault.clean:run_clean", "find credentials that leaked into mounted directories"),
    Verb("vault audit", "vault.audit:run_audit", "show the requests to the vault, and verify its log"),
    Verb("vault usage", "vault.audit:run_usage", "show requests, bytes and tokens by scope and container"),
    Verb("vault limit", "vault.audit:run_limit", "limit what the containers of a scope may use"),
    Verb(
        "vault proxy",
        "",
        "the credential of the HTTP proxy",
        "Manage the credential of the HTTP proxy that is configured as network.upstream_proxy.",
    ),
    Verb("vault proxy show", "vault.proxy:show", "show the proxy, and whether it has a credential"),
    Verb("vault proxy set", "vault.proxy:change", "store the user and password for the proxy"),
    Verb("vault proxy remove", "vault.proxy:remove", "delete a proxy's credential"),
    Verb(
        "vault passphrase",
        "",
        "the ways to unlock the vault",
        "Show and change the ways to unlock the vault. Each wraps the same data key, so that a change takes no time "
        "and running containers do not notice it.",
    ),
    Verb("vault passphrase list", "vault.tiers:list_tiers", "list the ways to unlock the vault"),
    Verb("vault passphrase set", "vault.tiers:set_passphrase", "protect the vault with a passphrase"),
    Verb("vault passphrase change", "vault.tiers:change_passphrase", "change the passphrase"),
    Verb("vault passphrase command", "vault.tiers:set_command", "unlock with the output of a program"),
    Verb("vault passphrase add", "vault.tiers:add_tier", "add a way that needs no passphrase"),
    Verb("vault passphrase remove", "vault.tiers:remove_tier", "remove a way; the last one cannot be removed"),
    Verb("vault passphrase recovery", "vault.tiers:new_recovery", "make a new recovery key and revoke the old one"),
    Verb(
        "ssh",
        "",
        "SSH keys that sign for containers",
        "Manage the SSH keys that sign for containers, and what each may sign. A private key never enters a container.",
    ),
    Verb("ssh generate", "ssh.cli:generate", "generate a key in the vault"),
    Verb("ssh import", "ssh.cli:import_key", "store a private key file (OpenSSH or PEM)"),
    Verb("ssh list", "ssh.cli:list_keys", "list the keys, without their secrets"),
    Verb("ssh pub", "ssh.cli:print_public", "print public keys"),
    Verb("ssh link", "ssh.cli:link", "let a scope use a key"),
    Verb("ssh unlink", "ssh.cli:unlink", "remove a key, and what it may sign there, from a scope"),
    Verb("ssh rename", "ssh.cli:rename", "change a key's name or comment"),
    Verb("ssh remove", "ssh.cli:remove", "delete a key"),
    Verb("ssh export", "ssh.cli:export", "write a private key to a file, in OpenSSH format"),
    Verb("ssh trust", "ssh.policy:trust", "pin a host's keys and allow logins there"),
    Verb("ssh untrust", "ssh.policy:untrust", "remove a host's pins"),
    Verb("ssh known-hosts", "ssh.policy:known_hosts", "print the pinned host keys as a known_hosts file"),
    Verb("ssh policy", "ssh.policy:policy", "show or change what a key may sign"),
    Verb("ssh confirm", "ssh.policy:confirm", "answer signatures that wait for confirmation"),
    Verb("ssh agent", "ssh.policy:agent", "serve a scope's keys to a shell on the host"),
    Verb(
        "gate",
        "",
        "git mirrors that containers clone from and push to",
        "Manage git mirrors that containers clone from and push to without any credential. A mirror belongs to a "
        "scope: its containers use it at http://127.0.0.1:9418/SCOPE.git, and git in the container is configured for "
        "it. In the mode gatekeeping, a push waits as a proposal for `approve` or `reject`; in the mode online, it is "
        "passed on at once. See docs/gate.md.",
    ),
    Verb("gate add", "gate.cli:add", "mirror a repository for a scope"),
    Verb("gate list", "gate.cli:list_gates", "list gates, or one scope's branches and open proposals"),
    Verb("gate set", "gate.cli:change", "change a gate's mode, credential, host key or limits"),
    Verb("gate policy", "gate.cli:policy", "show or change which refs containers may push"),
    Verb("gate sync", "gate.cli:synchronise", "fetch from upstream"),
    Verb("gate log", "gate.cli:log", "show what was pushed, approved, rejected, restored and fetched"),
    Verb("gate diff", "gate.cli:diff", "show a proposal's commits and changes"),
    Verb("gate approve", "gate.cli:approve", "push a proposal to upstream, if upstream has not moved since"),
    Verb("gate reject", "gate.cli:reject", "drop a proposal; it can be restored for 30 days"),
    Verb("gate restore", "gate.cli:restore", "list lost tips, or restore one to its ref"),
    Verb("gate path", "gate.cli:path", "print the path of the mirror"),
    Verb("gate remove", "gate.cli:remove", "delete a mirror, its open proposals and lost tips"),
    Verb(
        "mcp",
        "",
        "MCP servers in containers of their own, for the agents of a scope",
        "Run MCP servers in containers of their own. Agents of the scope reach each at "
        "http://127.0.0.1:9417/mcp/NAME, with the tools whose texts you have accepted. See docs/howto/mcp.md.",
    ),
    Verb("mcp add", "mcp.cli:add", "run a server for a scope"),
    Verb("mcp list", "mcp.cli:list_servers", "list a scope's servers"),
    Verb("mcp show", "mcp.cli:show", "show a server and the texts of its tools"),
    Verb("mcp pin", "mcp.cli:pin", "show what a server's tools say now, and accept it"),
    Verb("mcp remove", "mcp.cli:remove", "remove a server"),
    Verb(
        "agents",
        "",
        "AI agents: what each needs, and images that have one",
        "List the agents of the roster, and build images that have one. Without a verb, they are listed.",
        bare="agents list",
    ),
    Verb("agents list", "care.agents:run", "list the agents of the roster and the scopes that can use each"),
    Verb("agents image", "agent.cli:image", "build an agent's image, or print its Containerfile"),
)
HOST = (
    Verb("setup", "care.setup:setup", "install the Podman hooks; list what is missing and how to install it"),
    Verb("doctor", "care.doctor:run", "diagnose a problem and fix what is safe to fix"),
    Verb("config", "", "show and change the configuration", "Show and change the configuration."),
    Verb("config show", "care.config:run_show", "print every key with its value"),
    Verb("config get", "care.config:run_get", "print the value of one key"),
    Verb("config set", "care.config:run_set", "change one key; the rest of the file stays as it is"),
    Verb("uninstall", "care.setup:uninstall", "remove the Podman hooks"),
    Verb("completion", "completion:run", "print a completion script or write the man pages"),
)
SECTIONS: dict[str, tuple[Verb, ...]] = {"Run": RUN, "See": SEE, "Allow": ALLOW, "Secrets": SECRETS, "Host": HOST}
"""What a person wants, and its verbs, in the order of `terok --help`."""

BY_PATH = {row.path: row for rows in SECTIONS.values() for row in rows}

SHIELD_ALSO = ("run", "prepare", "cleanup", "setup", "uninstall", "doctor", "config")
"""Verbs that `terok-shield` has besides those of `terok shield`."""


def below(path: str) -> list[Verb]:
    """The verbs directly in a group, or at the top for an empty path."""
    return [row for row in BY_PATH.values() if row.parent == path]


def roots(prog: str) -> dict[str, str]:
    """What may be the first word of a program, and the path that each leads to."""
    if prog != "terok-shield":
        return {row.name: row.path for row in below("")}
    return {row.name: row.path for row in below("shield")} | {name: name for name in SHIELD_ALSO}


def leaves() -> Iterator[Verb]:
    """Every verb that does something."""
    return (row for row in BY_PATH.values() if row.target)
