from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class InfozRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfozResponse(_message.Message):
    __slots__ = ("version", "backends", "chart_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    CHART_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    backends: _containers.RepeatedScalarFieldContainer[str]
    chart_version: str
    def __init__(self, version: _Optional[str] = ..., backends: _Optional[_Iterable[str]] = ..., chart_version: _Optional[str] = ...) -> None: ...

class StatuszRequest(_message.Message):
    __slots__ = ("readiness",)
    READINESS_FIELD_NUMBER: _ClassVar[int]
    readiness: bool
    def __init__(self, readiness: _Optional[bool] = ...) -> None: ...

class StatuszResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
