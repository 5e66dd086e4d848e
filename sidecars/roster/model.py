"""Providers and agents as the compiled roster holds them: frozen, read once. What each member means.

`routes.json` has the same members under the same names; `catalog.py` reads and writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    Claims: TypeAlias = "Mapping[str, Claims] | tuple[Claims, ...] | list[Claims] | bool | int | str"
    """Plain data: claims of a phantom token that is a JWT."""

Texts = Mapping[str, str]


class Upstream(NamedTuple):
    """One place that a provider's requests go to; the first that matches serves the request.

    Attributes:
        url: where it is.
        prefix: compared with the canonical path.
        host: when set, compared with the client's Host without its port.
        strip: the prefix is cut off the path before the url's own path is put in front.
        auth: the credential kinds that it takes; empty: every kind.
        auth_as: this kind's way of sending the secret is used instead of the credential's own.
    """

    url: str
    prefix: str = "/"
    host: str | None = None
    strip: bool = False
    auth: tuple[str, ...] = ()
    auth_as: str | None = None


class Auth(NamedTuple):
    """How a secret of one kind is sent.

    Attributes:
        scheme: `header` (header: prefix + secret) or `basic` (RFC 7617 with `user`).
        headers, merge: as the provider's, for this kind.
        token, claims: the template of phantom tokens (`store/tokens.py`).
    """

    scheme: str = "header"
    header: str = "Authorization"
    prefix: str = ""
    user: str | None = None
    headers: Texts = {}
    merge: Texts = {}
    token: str = ""
    claims: Mapping[str, Claims] | None = None


class Rule(NamedTuple):
    """The first rule that matches the method and the canonical path decides; none means refused (`default`).

    Attributes:
        methods: `*` is any.
        paths: `*` stands for anything but `/`, `**` for anything.
    """

    name: str
    action: str
    methods: tuple[str, ...]
    paths: tuple[str, ...]


class Refresh(NamedTuple):
    """How a login is refreshed: `format` is `json` or `form`, `margin` in seconds before the expiry."""

    url: str
    client_id: str
    scopes: tuple[str, ...] = ()
    format: str = "json"
    margin: int = 300


class Check(NamedTuple):
    """What `terok vault check` asks for."""

    path: str = "/"
    headers: Texts = {}


class Forge(NamedTuple):
    """Where a provider's paths name git repositories: for a scope whose gate stands before one (`vault/gated/`).

    Path patterns as in rules; besides, `{repository}` is the gated repository's path, and `{project}` is that or one
    segment without a slash: a number.

    Attributes:
        hosts: as they stand in git URLs.
        repository: a write at or below one of these is refused.
        open: writes that are not: they change no branch or tag.
        closed: writes that are refused in every repository: they may change branches of one that they do not name.
        graphql: where GraphQL is spoken; requests there are judged by their bodies.
        mutations: those that change no branch or tag.
        commands: writes whose texts the forge carries out when they look like commands.
    """

    hosts: tuple[str, ...] = ()
    repository: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    graphql: tuple[str, ...] = ()
    mutations: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


ALLOW_ALL = Rule("any", "allow", ("*",), ("/**",))


class Provider(NamedTuple):
    """An upstream service.

    Attributes:
        title, site: for people; the site is where they get a key.
        variables: placeholder -> default value.
        upstreams: in the order in which they are tried.
        auth: by credential kind.
        headers: set, replacing the client's, for every kind.
        merge: added to the client's comma-separated list, for every kind.
        token_query: query parameters that may carry the token and are taken out.
        foreign_query, foreign_headers: in lower case; places besides the token's own that carry another credential or
            select another account. A request with one of them is refused. A header that the route sets is not foreign.
        storage: hosts to which the upstream redirects downloads: a GET or HEAD for one of them passes without a
            credential. Each is the provider's alone, never one of many tenants: what passes does not ask the shield.
        forge: where its paths name git repositories; None: it has none, or the roster does not say.
        suffixes: what the upstream accepts behind a path as the same path; deny rules hold it already.
        per_minute, concurrent: limits of requests; None: no limit.
        body_max: bytes; None: no limit.
        encoded_slash: its servers keep `%2F` inside a segment; otherwise rules judge both readings.
        ca_bundle: path of the only authorities that are trusted; None: the system's.
        usage: whose way of reporting used tokens is read: `anthropic`, `openai`, `mistral`, `google` or None.
        custom: the upstream comes with the credential; a scope may have several, named `custom-NAME`.
        shapes: how its secrets begin; one that begins like another provider's is not stored by mistake.
        secret_fields: members of the credential's JSON that are secret.
    """

    title: str = ""
    site: str | None = None
    variables: Texts = {}
    upstreams: tuple[Upstream, ...] = ()
    auth: Mapping[str, Auth] = {}
    headers: Texts = {}
    merge: Texts = {}
    token_query: tuple[str, ...] = ()
    foreign_query: tuple[str, ...] = ()
    foreign_headers: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()
    forge: Forge | None = None
    suffixes: tuple[str, ...] = ("/",)
    rules: tuple[Rule, ...] = (ALLOW_ALL,)
    per_minute: int | None = None
    concurrent: int | None = None
    body_max: int | None = None
    allow_private: bool = False
    ca_bundle: str | None = None
    encoded_slash: bool = False
    websocket: bool = False
    usage: str | None = None
    refresh: Refresh | None = None
    check: Check | None = None
    custom: bool = False
    shapes: tuple[str, ...] = ()
    secret_fields: tuple[str, ...] = ()


class AgentFile(NamedTuple):
    """A file that an agent wants to find.

    Attributes:
        path: relative to the home directory of the container's user, without `..`.
        content: its text; holds phantom tokens only.
        mode: permission bits.
    """

    path: str
    content: str
    mode: int


class Needs(NamedTuple):
    """Environment, files and git configuration, with placeholders (`agents.py`)."""

    env: Texts = {}
    files: tuple[AgentFile, ...] = ()
    git: Texts = {}


class Variant(NamedTuple):
    """What is added for one provider and credential kind (None: any); the first that fits counts."""

    provider: str | None
    auth: str | None
    needs: Needs


class Capture(NamedTuple):
    """One place where the vendor's program keeps a credential, or a login that makes one (`runtime/vault/capture.py`).

    Attributes:
        fields: part of the credential -> where in the file it is: keys joined by `/` (`*`: the first member).
        variables: placeholder of the provider -> the same.
        command: the vendor's login; empty: none.
    """

    provider: str
    auth: str
    file: str
    format: str
    fields: Texts
    variables: Texts = {}
    command: tuple[str, ...] = ()
    environ: Texts = {}
    hint: str = ""


class Agent(NamedTuple):
    """An AI client program.

    Attributes:
        providers: those that it can use, best first.
        every: it uses all of them at once, not the best one.
        needs: what it needs in every case.
        leaks: credential files that it would write, below the home directory, for `terok vault clean`.
    """

    title: str
    providers: tuple[str, ...]
    every: bool = False
    needs: Needs = Needs()
    variants: tuple[Variant, ...] = ()
    capture: tuple[Capture, ...] = ()
    leaks: tuple[str, ...] = ()


class Source(NamedTuple):
    """A roster file as it was when it was compiled."""

    path: str
    mtime_ns: int
    size: int


class Catalog(NamedTuple):
    """The compiled roster.

    Attributes:
        sources: files it was made from.
        token_headers: lower case; where clients put tokens: taken out of every request.
    """

    providers: Mapping[str, Provider] = {}
    agents: Mapping[str, Agent] = {}
    token_headers: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()

    def provider(self, name: str) -> Provider | None:
        """The provider of a credential: by its name, or `custom` for `custom-NAME`."""
        known = self.providers.get(name)
        if known is None:
            base, dash, own = name.partition("-")
            custom = self.providers.get(base)
            if custom is not None and custom.custom and dash and own.islower() and own.replace("-", "").isalnum():
                known = custom
        return known

    def meant_for(self, secret: str) -> tuple[str, ...]:
        """The providers whose secrets begin like this one, by the longest beginning; empty: any could be."""
        titles: dict[int, list[str]] = {}
        for name, provider in self.providers.items():
            length = max((len(shape) for shape in provider.shapes if secret.startswith(shape)), default=0)
            titles.setdefault(length, []).append(name)
        longest = max(titles, default=0)
        return tuple(titles[longest]) if longest else ()
