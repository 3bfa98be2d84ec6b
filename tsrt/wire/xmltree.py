"""
XML from devices that nobody vouches for: small documents, read with limits.

There is no document type declaration, so there are no entities, and nothing is
ever fetched or expanded; documents that have one are refused.  Size, depth and
number of elements are bounded.  Namespaces are dropped from names: devices
disagree about them, and the local names are unambiguous in what is read here.

Reference: Extensible Markup Language (XML) 1.0; UPnP Device Architecture 1.1
section 2.1 and 3.2.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from xml.parsers import expat

from tsrt.errors import WireError

LARGEST_DOCUMENT = 128 * 1024
"""Bytes of a document that is read."""

DEEPEST = 32
"""How many elements may contain each other."""

MOST_ELEMENTS = 4096
"""How many elements a document may have."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Element:
    """
    One element.

    @ivar name: its local name.
    @ivar children: the elements in it, in order.
    """

    __slots__ = ("_text", "children", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.children: list[Element] = []
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """The characters directly in it, without white space around them."""
        return "".join(self._text).strip()

    def addText(self, text: str) -> None:
        """Append characters."""
        self._text.append(text)

    def child(self, name: str) -> Element | None:
        """The first element of this name directly in it."""
        return next((each for each in self.children if each.name == name), None)

    def textOf(self, name: str) -> str:
        """The text of a child, empty when there is no such child."""
        found = self.child(name)
        return "" if found is None else found.text

    def find(self, name: str) -> Iterator[Element]:
        """All elements of this name anywhere in it, in order."""
        # The depth is bounded, so this recursion is.
        for each in self.children:
            if each.name == name:
                yield each
            yield from each.find(name)


class _Builder:
    """Takes what expat sees."""

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: object) -> None:
        self._count += 1
        if self._count > MOST_ELEMENTS:
            raise WireError(f"an XML document has more than {MOST_ELEMENTS} elements")
        if len(self._open) >= DEEPEST:
            raise WireError(f"an XML document is nested deeper than {DEEPEST}")
        element = Element(name.rpartition(":")[2])
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, name: str) -> None:
        self._open.pop()

    def characters(self, text: str) -> None:
        self._open[-1].addText(text)

    def doctype(self, *declaration: object) -> None:
        raise WireError("an XML document declares a document type, or entities")


def parseDocument(document: bytes) -> Element:
    """
    Read a document.

    It is taken for UTF-8, as it must be, or else for Latin-1, as some are.
    White space in front and zeros behind it are put up with.

    @return: its root.
    @raise WireError: if it is not well-formed, exceeds a limit, or declares a
        document type.
    """
    if len(document) > LARGEST_DOCUMENT:
        raise WireError(f"an XML document has more than {LARGEST_DOCUMENT} bytes")
    document = document.removeprefix(b"\xef\xbb\xbf").strip(b"\0\t\n\r ")
    try:
        document.decode("utf-8")
    except UnicodeDecodeError:
        document = document.decode("latin-1").encode("utf-8")
    builder = _Builder()
    # This overrides what the document says of its encoding.
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.EntityDeclHandler = builder.doctype
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise WireError(f"an XML document is malformed: {error}") from None
    if builder.root is None:
        raise WireError("an XML document is empty")
    return builder.root


def quote(text: str) -> str:
    """Characters as they stand in a document; those that may not are left out."""
    return html.escape(_NOT_XML.sub("", text))
