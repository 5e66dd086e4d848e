"""Recipes of agents' images: which packages each needs, as the text of a Containerfile. Pure.

The text is the image's identity: its hash is the tag, so a changed recipe or base makes another image, and an unchanged
one is built once.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from ...supervisor.ground.errors import Exit, TerokError

USER, UID = "agent", 1000
"""The user that runs the agent in images made here; `--userns keep-id` maps the operator onto its uid."""
WORKSPACE = "/workspace"
"""Where the container sees the project directory."""
HOME = f"/home/{USER}"

_TOOLS = ("bash", "ca-certificates", "curl", "git", "jq", "less", "openssh-client", "procps", "ripgrep")
_NODE = ("nodejs", "npm")
_PYTHON = ("python3", "python3-venv")


@dataclass(frozen=True)
class Recipe:
    """How one agent gets into an image, and how it is started there.

    Attributes:
        agent: its name, as in the roster (`shell` is none of the roster's: a shell with the tools).
        command: the program and its arguments.
        unattended: arguments that turn its permission prompts off; the sandbox is what limits it then.
        unattended_env: variables that do so.
        npm, pypi: its packages in the registries of npm and of Python.
        env: variables of the image.
        base: an image that it needs instead of the configured default; None: any works.
    """

    agent: str
    command: tuple[str, ...]
    unattended: tuple[str, ...] = ()
    unattended_env: tuple[tuple[str, str], ...] = ()
    npm: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    base: str | None = None


RECIPES: dict[str, Recipe] = {
    recipe.agent: recipe
    for recipe in (
        Recipe(
            "claude",
            ("claude",),
            # the second answers the warning that Claude Code shows once for the first
            ("--dangerously-skip-permissions", "--settings", '{"skipDangerousModePermissionPrompt": true}'),
            npm=("@anthropic-ai/claude-code",),
            # Claude Code asks for it before it skips permissions as root; its updater has no right to write the image
            env=(("IS_SANDBOX", "1"), ("DISABLE_AUTOUPDATER", "1")),
        ),
        Recipe("codex", ("codex",), ("--dangerously-bypass-approvals-and-sandbox",), npm=("@openai/codex",)),
        Recipe(
            "gemini",
            ("gemini",),
            ("--yolo",),
            npm=("@google/gemini-cli",),
            env=(("GEMINI_CLI_TRUST_WORKSPACE", "true"),),
        ),
        Recipe("opencode", ("opencode",), npm=("opencode-ai",)),
        # Copilot needs Node 22, which npm's own package `node` has; Debian 13 has 20
        Recipe(
            "copilot",
            ("copilot",),
            ("--allow-all-tools",),
            (("COPILOT_ALLOW_ALL", "true"),),  # exactly `true` also answers whether the workspace is trusted
            npm=("node@22", "@github/copilot"),
        ),
        Recipe("vibe", ("vibe",), ("--auto-approve",), pypi=("mistral-vibe",)),
        Recipe(
            "aider",
            ("aider", "--no-check-update", "--no-analytics", "--no-show-release-notes", "--no-gitignore"),
            ("--yes-always",),
            pypi=("aider-chat",),
            base="debian:12",  # aider has no release for Python 3.13
        ),
        Recipe("shell", ("bash",)),
    )
}


def recipe_of(agent: str) -> Recipe:
    """The recipe of an agent; raises TerokError (NOT_FOUND) that names the known ones."""
    if agent not in RECIPES:
        raise TerokError(
            f"There is no image recipe for the agent {agent[:40]!r}.",
            fix=f"use one of {', '.join(RECIPES)}, or bring an image: --image IMAGE",
            code=Exit.NOT_FOUND,
        )
    return RECIPES[agent]


def containerfile(recipe: Recipe, base: str) -> str:
    """The Containerfile (Containerfile(5)) of an agent's image.

    Args:
        recipe: the agent's.
        base: the image that it starts from, with apt.
    """
    packages = [*_TOOLS, *(_NODE if recipe.npm else ()), *(_PYTHON if recipe.pypi else ())]
    lines = [
        f"# The image of terok for the agent {recipe.agent}.",
        f"FROM {recipe.base or base}",
        "ENV LANG=C.UTF-8",
        "RUN apt-get update"
        f" && apt-get install --yes --no-install-recommends {' '.join(packages)}"
        " && rm -rf /var/lib/apt/lists/*",
    ]
    if recipe.npm:
        lines.append(f"RUN npm install --global --no-fund --no-audit {' '.join(recipe.npm)} && npm cache clean --force")
    if recipe.pypi:
        lines += [
            f"RUN python3 -m venv /opt/agent && /opt/agent/bin/pip install --no-cache-dir {' '.join(recipe.pypi)}",
            f"RUN ln -s /opt/agent/bin/{recipe.command[0]} /usr/local/bin/{recipe.command[0]}",
        ]
    lines += [f'ENV {name}="{value}"' for name, value in recipe.env]
    lines += [
        f"RUN getent passwd {UID} >/dev/null || useradd --create-home --uid {UID} --shell /bin/bash {USER}",
        f"RUN mkdir -p {WORKSPACE} && chown {UID}:{UID} {WORKSPACE}",
        f"USER {UID}:{UID}",
        f"WORKDIR {WORKSPACE}",
        "CMD [" + ", ".join(f'"{word}"' for word in recipe.command) + "]",
    ]
    return "\n".join(lines) + "\n"


def tag(recipe: Recipe, base: str) -> str:
    """The name of the image that `containerfile` describes; it changes with the text."""
    digest = sha256(containerfile(recipe, base).encode()).hexdigest()
    return f"localhost/terok-agent-{recipe.agent}:{digest[:12]}"
