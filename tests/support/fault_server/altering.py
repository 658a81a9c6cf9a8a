"""Answers that are not what was done: another etag, another checksum, half an XML document."""

import re

import msgspec

from support.fault_server.answers import Answer
from support.fault_server.faults import MalformedXml, WrongChecksum, WrongEtag
from support.fault_server.script import Fate

_CHECKSUM_ELEMENT = re.compile(rb"(<Checksum(?:CRC\w+|SHA\w+)>)[^<]*")
_ETAG_ELEMENT = re.compile(rb"(<ETag>)[^<]*")
_OTHER_CHECKSUM = "AAAAAAAAAAA="


def altered(answer: Answer, fate: Fate) -> Answer:
    """Return the answer that the script wants in place of the true one."""
    if wrong := fate.find(WrongEtag):
        answer = _replaced(answer, fate, wrong, "etag", f'"{wrong.etag}"' if wrong.etag else "", _ETAG_ELEMENT)
    if other := fate.find(WrongChecksum):
        answer = _replaced(answer, fate, other, "x-amz-checksum-", _OTHER_CHECKSUM, _CHECKSUM_ELEMENT)
    if (malformed := fate.find(MalformedXml)) and answer.body:
        fate.happened(malformed)
        answer = msgspec.structs.replace(answer, body=answer.body[: len(answer.body) * 2 // 3])
    return answer


def _replaced(
    answer: Answer, fate: Fate, fault: WrongEtag | WrongChecksum, name: str, value: str, element: re.Pattern[bytes]
) -> Answer:
    headers = {
        header: value if header.startswith(name) and header != "x-amz-checksum-type" else old
        for header, old in answer.headers.items()
    }
    body = element.sub(rb"\g<1>" + value.encode(), answer.body)
    if (headers, body) != (answer.headers, answer.body):
        fate.happened(fault)
    return msgspec.structs.replace(answer, headers=headers, body=body)
