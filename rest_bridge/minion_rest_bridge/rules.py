"""HTTP rules and policies of the services in the generated modules."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]  # has no py.typed
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from minion.v1 import options_pb2

from minion_rest_bridge import templates
from minion_rest_bridge.fields import DURATION, Path, is_message, resolve, takes_text
from minion_rest_bridge.templates import Template

PACKAGE: Final = "minion.v1"
BODY_ALL: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy of a method, from its options."""

    method: str  # such as `minion.v1.MinionService/GetJob`
    is_open: bool  # needs no key
    is_stream: bool
    is_safe: bool  # a call has no side effects
    is_idempotent: bool  # a repeated call has no further effect
    wait_field: str | None  # the Duration of the request for which a call can wait

    def timeout(self, request: Message, default: float | None) -> float | None:
        """Return the limit of a call in seconds, for HTTP requests without a deadline.

        Streams have no limit; other calls have the default and, in addition, the wait.
        """
        if default is None or self.is_stream:
            return None
        if self.wait_field is None:
            return default
        return default + max(0, int(getattr(request, self.wait_field).seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One way to call a method over HTTP (google/api/http.proto)."""

    method: MethodDescriptor
    policy: Policy
    http_method: str  # such as GET; `*` for all
    template: Template
    body: str | None  # name of the field that the body fills, or `*`
    response_body: FieldDescriptor | None  # the only field that is returned; None: all


def load_services(package: str = PACKAGE) -> list[ServiceDescriptor]:
    """Return the services of all generated modules of a package, sorted by name.

    Raises:
        ImportError: There is no such package.
    """
    services: dict[str, ServiceDescriptor] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"{package}.{module.name}").DESCRIPTOR
            services |= {service.full_name: service for service in file.services_by_name.values()}
    return [services[name] for name in sorted(services)]


def read_rules(services: Sequence[ServiceDescriptor]) -> Iterator[Rule]:
    """Return the rules of the services' methods, in the order of the files.

    Raises:
        ValueError: A rule is malformed, names a field that does not exist, or belongs to a method
            with a stream of requests.
    """
    for method in (method for service in services for method in service.methods):
        options = method.GetOptions()
        if not options.HasExtension(annotations_pb2.http):
            continue
        if method.client_streaming:
            raise ValueError(f"{method.full_name}: a stream of requests has no HTTP rule")
        rule = options.Extensions[annotations_pb2.http]
        for each in (rule, *rule.additional_bindings):
            yield _read_rule(method, each)


def policy_of(method: MethodDescriptor) -> Policy:
    """Return the policy of a method.

    Raises:
        ValueError: The wait field of the method is not a Duration of its request.
    """
    level = method.GetOptions().idempotency_level
    options = method.GetOptions().Extensions[options_pb2.policy]
    wait_field = options.wait_field or None
    durations = {field.name for field in method.input_type.fields if is_message(field, DURATION)}
    if wait_field is not None and wait_field not in durations:
        raise ValueError(f"{method.full_name}: {wait_field} is not a Duration of its request")
    return Policy(
        method=f"{method.containing_service.full_name}/{method.name}",
        is_open=options.open,
        is_stream=method.server_streaming,
        is_safe=level == MethodOptions.NO_SIDE_EFFECTS,
        is_idempotent=level != MethodOptions.IDEMPOTENCY_UNKNOWN,
        wait_field=wait_field,
    )


def _read_rule(method: MethodDescriptor, rule: http_pb2.HttpRule) -> Rule:
    match rule.WhichOneof("pattern"):
        case None:
            raise ValueError(f"{method.full_name}: its HTTP rule has no path")
        case "custom":
            http_method, text = rule.custom.kind.upper(), rule.custom.path
        case kind:
            http_method, text = kind.upper(), getattr(rule, kind)
    template = templates.parse(text)
    _check_variables(method, template)
    for name, message in (
        (rule.body, method.input_type),
        (rule.response_body, method.output_type),
    ):
        if name not in ("", BODY_ALL) and name not in message.fields_by_name:
            raise ValueError(f"{method.full_name}: {message.name} has no field {name}")
    return Rule(
        method=method,
        policy=policy_of(method),
        http_method=http_method,
        template=template,
        body=rule.body or None,
        response_body=method.output_type.fields_by_name.get(rule.response_body),
    )


def _check_variables(method: MethodDescriptor, template: Template) -> None:
    bound: set[Path] = set()
    for variable in template.variables:
        name = ".".join(variable)
        chain = resolve(method.input_type, variable) or []
        if not chain or any(field.is_repeated for field in chain) or not takes_text(chain[-1]):
            raise ValueError(f"{method.full_name}: {name} is not a single field that text can fill")
        path = tuple(field.name for field in chain)
        if path in bound:
            raise ValueError(f"{method.full_name}: {name} is bound twice")
        bound.add(path)
