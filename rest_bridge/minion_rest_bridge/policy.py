"""How a method may be called, as its options in the contract state it."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from minion.v1 import options_pb2

from minion_rest_bridge.fields import DURATION, is_message


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a method may be called.

    Attributes:
        method: Its full name, as in `minion.v1.MinionService/GetJob`.
        is_open: Whether callers need no key.
        is_stream: Whether it returns a stream.
        is_safe: Whether a call has no side effects.
        is_idempotent: Whether a second call changes nothing more.
        wait_field: Name of the request's Duration that says how long a call may wait for something
            to happen; None: the method does not wait.
    """

    method: str
    is_open: bool
    is_stream: bool
    is_safe: bool
    is_idempotent: bool
    wait_field: str | None

    def timeout(self, request: Message, default: float | None) -> float | None:
        """Return the seconds that a call may take when the HTTP request names no deadline.

        A stream may take any time, and a call as long as it is asked to wait besides.

        Args:
            request: Of the call.
            default: Seconds that a call may take which does not wait; None: any time.
        """
        if default is None or self.is_stream:
            return None
        if self.wait_field is None:
            return default
        return default + max(0, int(getattr(request, self.wait_field).seconds))


def policy_of(method: MethodDescriptor) -> Policy:
    """Return the policy of a method.

    Raises:
        ValueError: The contract names a field to wait by that is not a Duration of the request.
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
