"""Compiling the `providers:` of a roster file (`model.py` says what each member means)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..store.credential import AUTH_KINDS, SECRET_FIELDS
from ..store.tokens import DEFAULT_TEMPLATE, RANDOM_BITS_MIN, template_bits
from . import catalog
from .model import Auth, Check, Forge, Provider, Refresh, Rule, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .model import Claims
    from .nodes import Node

NAME = r"[a-z][a-z0-9-]{0,39}"
_HEADER = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}"  # RFC 9110, 5.6.2: token
_HEADER_VALUE = r"[ -~]{0,1024}"
_METHOD = r"[A-Z]{1,16}|\*"
_PATH = r"/[!-~]{0,255}"
_RULE = r"[a-z0-9][a-z0-9-]{0,59}"
_FORBIDDEN_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "keep-alive"}
)
"""What belongs to the connection; a route must not touch it."""

_KEYS = frozenset(
    ("title", "site", "variables", "upstreams", "auth", "headers", "merge", "token_query", "rules", "limits", "custom")
    + ("allow_private", "ca_bundle", "encoded_slash", "websocket", "usage", "refresh", "extends", "check")
    + ("foreign", "storage", "suffixes", "shapes", "forge")
)
FOREIGN_QUERY = (
    *("access_token", "api-key", "api_key", "apikey", "auth_token", "bearer_token", "client_secret", "deploy_token"),
    *("id_token", "job_token", "oauth_token", "private_token", "refresh_token"),
)
"""Query parameters that carry a credential at one service or another; `foreign.query` adds a provider's own."""


def provider(node: Node, known: Mapping[str, Provider]) -> Provider:
    """One compiled provider.

    Args:
        node: its mapping.
        known: providers compiled before, which `extends` may name.

    Raises:
        RosterError: something in it is wrong.
    """
    fields = node.fields(_KEYS)
    compiled = _base(fields.get("extends"), known)
    compiled = compiled._replace(**{name: read(fields[name]) for name, read in _READERS.items() if name in fields})
    if "foreign" in fields:
        compiled = _foreign(fields["foreign"], compiled)
    if "limits" in fields:
        compiled = _limits(fields["limits"], compiled)
    for required in ("title", "auth"):
        if not getattr(compiled, required):
            node.fail(f"the key {required} is missing")
    if not compiled.upstreams and not compiled.custom:
        node.fail("the key upstreams is missing")
    if compiled.refresh and "oauth" not in compiled.auth:
        fields["refresh"].fail("refresh needs auth.oauth")
    _check_addresses(node, compiled)
    return compiled._replace(
        rules=_cover_suffixes(compiled),
        upstreams=tuple(
            sorted(compiled.upstreams, key=lambda upstream: (upstream.host is None, -len(upstream.prefix)))
        ),
    )


def token_headers(providers: Mapping[str, Provider]) -> tuple[str, ...]:
    """Every header in which a client may send a token, lower case: all of them are taken out of each request."""
    names = {"authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "private-token", "job-token"}
    for known in providers.values():
        names.update(auth.header.lower() for auth in known.auth.values() if auth.header)
    return tuple(sorted(names))


def _base(extends: Node | None, known: Mapping[str, Provider]) -> Provider:
    """What a provider has before its own keys are read."""
    if extends is None:
        return Provider(foreign_query=FOREIGN_QUERY, secret_fields=tuple(SECRET_FIELDS))
    name = extends.text()
    if name not in known:
        extends.fail(f"there is no provider {name!r} before this one")
    return known[name]


def _upstream(node: Node) -> Upstream:
    fields = node.fields(("url", "prefix", "host", "strip", "auth", "auth_as"), ("url",))
    return Upstream(
        url=url_of(fields["url"], placeholders=True),
        prefix=fields["prefix"].text(_PATH, "a path") if "prefix" in fields else "/",
        host=fields["host"].text(r"[a-z0-9.{}_-]{1,253}", "a host name in lower case") if "host" in fields else None,
        strip=fields["strip"].boolean() if "strip" in fields else False,
        auth=tuple(kind.choice(AUTH_KINDS) for kind in fields["auth"].items()) if "auth" in fields else (),
        auth_as=fields["auth_as"].choice(AUTH_KINDS) if "auth_as" in fields else None,
    )


def url_of(node: Node, *, placeholders: bool = False) -> str:
    """The URL of an upstream or a token endpoint: https or http, a host, no user, query or fragment."""
    text = node.text(r"[!-~]{1,512}", "a URL")
    problem = url_problem(text if not placeholders else text.replace("{host}", "host.invalid"))
    if problem:
        node.fail(problem)
    return text.rstrip("/")


def url_problem(text: str) -> str:
    """Why `text` cannot be the URL of an upstream; empty when it can."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        return f"this is not a URL: {error}"
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        return "a URL is wanted here, such as https://api.example.com"
    if parts.username or parts.password or parts.query or parts.fragment or "\\" in text:
        return "a URL without user, query and fragment is wanted here"
    return ""


def _auth(node: Node) -> dict[str, Auth]:
    kinds = {}
    for kind, member in node.members().items():
        if kind not in AUTH_KINDS:
            member.fail(f"there is no such kind; known: {', '.join(AUTH_KINDS)}")
        kinds[kind] = _auth_kind(member, kind)
    return kinds


def _auth_kind(node: Node, kind: str) -> Auth:
    fields = node.fields(("header", "prefix", "user", "headers", "merge", "token", "claims"))
    basic = kind == "basic"
    if basic and ("header" in fields or "prefix" in fields):
        node.fail("basic has no header of its own: it is Authorization: Basic")
    if not basic and "header" not in fields:
        node.fail("the key header is missing")
    return Auth(
        scheme="basic" if basic else "header",
        header="Authorization" if basic else fields["header"].text(_HEADER, "a header's name"),
        prefix=fields["prefix"].text(_HEADER_VALUE, "printable ASCII") if "prefix" in fields else "",
        user=fields["user"].text(r"[!-9;-~]{1,128}", "a user name") if "user" in fields else None,
        headers=_headers(fields["headers"]) if "headers" in fields else {},
        merge=_headers(fields["merge"]) if "merge" in fields else {},
        token=_template(fields["token"]) if "token" in fields else DEFAULT_TEMPLATE,
        claims=fields["claims"].table(_claims) if "claims" in fields else None,
    )


def _template(node: Node) -> str:
    text = node.text()
    try:
        bits = template_bits(text)
    except ValueError as error:
        node.fail(str(error))
    if bits < RANDOM_BITS_MIN:
        node.fail(f"such a token has {bits:.0f} random bits; it needs at least {RANDOM_BITS_MIN}")
    return text


def _claims(node: Node) -> Claims:
    """Plain data: mappings, lists, texts, numbers and truth values."""
    tag = node.node.tag.rpartition(":")[2]
    if tag == "map":
        return node.table(_claims)
    if tag == "seq":
        return [_claims(item) for item in node.items()]
    if tag == "bool":
        return node.boolean()
    return node.integer(0, 10**12) if tag == "int" else node.text()


def _headers(node: Node) -> dict[str, str]:
    headers = {}
    for name, member in node.members().items():
        if name.lower() in _FORBIDDEN_HEADERS:
            member.fail("this header belongs to the connection; a route cannot set it")
        if not name.isascii() or not name.replace("-", "").isalnum():
            member.fail("this is not a header's name")
        headers[name] = member.text(_HEADER_VALUE, "printable ASCII")
    return headers


def _rule(node: Node) -> Rule:
    fields = node.fields(("name", "action", "methods", "paths"), ("name", "paths"))
    return Rule(
        fields["name"].text(_RULE, "a rule's name (a-z, 0-9, -)"),
        fields["action"].choice(("allow", "deny")) if "action" in fields else "allow",
        tuple(fields["methods"].texts(_METHOD, "a method in capitals or *")) if "methods" in fields else ("*",),
        tuple(fields["paths"].texts(_PATH, "a path pattern that begins with /")),
    )


def _rules(node: Node) -> tuple[Rule, ...]:
    rules = [_rule(item) for item in node.items()]
    taken = {"default"}
    for index, rule in enumerate(rules):
        if rule.name in taken:
            node.items()[index].fail(f"the rule name {rule.name} is taken")
        taken.add(rule.name)
    return tuple(rules)


def _foreign(node: Node, compiled: Provider) -> Provider:
    """Query parameters and headers, in lower case, that carry another credential or select another account."""
    fields = node.fields(("query", "headers"))
    query = fields["query"].texts(r"[a-z0-9_$-]{1,40}", "a parameter's name in lower case") if "query" in fields else []
    headers = fields["headers"].texts(_HEADER, "a header's name") if "headers" in fields else []
    return compiled._replace(
        foreign_query=tuple(sorted({*FOREIGN_QUERY, *query})),
        foreign_headers=tuple(sorted(name.lower() for name in headers)),
    )


def _cover_suffixes(compiled: Provider) -> tuple[Rule, ...]:
    """Let deny rules cover what else their upstream takes for the same path: `/user/keys.json`, `/user/keys/`."""
    suffixes = list(dict.fromkeys(["/", *compiled.suffixes]))
    suffixes += [f"{suffix}/" for suffix in suffixes if suffix != "/"]

    def covered(rule: Rule) -> Rule:
        if rule.action != "deny":
            return rule
        bare = [path.removesuffix("/") for path in rule.paths if not path.endswith("**")]
        more = [path + suffix for path in bare for suffix in suffixes]
        return rule._replace(paths=tuple(dict.fromkeys([*rule.paths, *more])))

    return tuple(covered(rule) for rule in compiled.rules)


def _limits(node: Node, compiled: Provider) -> Provider:
    fields = node.fields(("per_minute", "concurrent", "body_mb"))

    def limit(name: str) -> int | None:
        return fields[name].integer(1, 10**6) if name in fields else None

    megabytes = limit("body_mb")
    return compiled._replace(
        per_minute=limit("per_minute"),
        concurrent=limit("concurrent"),
        body_max=megabytes << 20 if megabytes else None,
    )


def _refresh(node: Node) -> Refresh:
    fields = node.fields(("url", "client_id", "scopes", "format", "margin"), ("url", "client_id"))
    return Refresh(
        url=url_of(fields["url"]),
        client_id=fields["client_id"].text(r"[!-~]{1,256}", "a client id"),
        scopes=tuple(fields["scopes"].texts(r"[!-~]{1,128}", "a scope")) if "scopes" in fields else (),
        format=fields["format"].choice(("json", "form")) if "format" in fields else "json",
        margin=fields["margin"].integer(0, 86400) if "margin" in fields else 300,
    )


def _check(node: Node) -> Check:
    fields = node.fields(("path", "headers"), ("path",))
    headers = _headers(fields["headers"]) if "headers" in fields else {}
    return Check(fields["path"].text(_PATH, "a path"), headers)


def _forge(node: Node) -> Forge:
    fields = node.fields(Forge._fields, ("hosts", "repository"))

    def texts(name: str) -> tuple[str, ...]:
        if name == "hosts":
            return tuple(fields[name].texts(r"[a-z0-9.{}-]{3,253}", "a host name in lower case"))
        if name == "mutations":
            return tuple(fields[name].texts(r"[_A-Za-z][_0-9A-Za-z]{0,99}", "a mutation's name"))
        return tuple(fields[name].texts(_PATH, "a path pattern that begins with /"))

    return Forge(**{name: texts(name) for name in fields})


def _check_addresses(node: Node, compiled: Provider) -> None:
    """Plain http carries the secret in the clear: only for a private upstream that says so."""
    urls = [upstream.url for upstream in compiled.upstreams]
    urls += [compiled.refresh.url] if compiled.refresh else []
    if any(url.startswith("http:") for url in urls) and not compiled.allow_private:
        node.fail("an http:// upstream would carry the secret in the clear; use https, or allow_private: true")
    templates = [upstream.url + upstream.prefix + (upstream.host or "") for upstream in compiled.upstreams]
    for template in [*templates, *(compiled.forge.hosts if compiled.forge else ())]:
        for name in catalog.placeholders(template):
            if name not in compiled.variables:
                node.fail(f"the placeholder {{{name}}} is not declared under variables")


_READERS: dict[str, Callable[[Node], Any]] = {
    "title": lambda node: node.text(r".{1,80}", "a title"),
    "site": url_of,
    "variables": lambda node: node.table(lambda member: member.text(r"[!-~]{0,255}", "a value")),
    "upstreams": lambda node: tuple(_upstream(item) for item in node.items()),
    "auth": _auth,
    "headers": _headers,
    "merge": _headers,
    "token_query": lambda node: tuple(node.texts(r"[A-Za-z0-9_-]{1,40}", "a parameter's name")),
    "rules": _rules,
    "storage": lambda node: tuple(node.texts(r"[a-z0-9][a-z0-9.-]{2,252}", "a host name in lower case")),
    "forge": _forge,
    "suffixes": lambda node: tuple(node.texts(r"/|\.[A-Za-z0-9.*]{1,20}", "/, or an extension such as .json")),
    "allow_private": lambda node: node.boolean(),
    "ca_bundle": lambda node: node.text(r"/.{1,1023}", "an absolute path"),
    "encoded_slash": lambda node: node.boolean(),
    "websocket": lambda node: node.boolean(),
    "usage": lambda node: node.choice(("anthropic", "openai", "mistral", "google")),
    "refresh": _refresh,
    "check": _check,
    "custom": lambda node: node.boolean(),
    "shapes": lambda node: tuple(node.texts(r"[!-~]{2,40}", "the beginning of a secret")),
}
"""How each key of a provider is read; `foreign`, `limits` and `extends` are read apart."""
